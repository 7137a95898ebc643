"""The clusters that traffic is counted in: which clustering, with which centroids, and what was trained on in them.

Key property: a count never mixes two clusterings or two sets of centroids. ``clusters`` and all that selection made of it stay as
they are; one pointer says which clustering is watched instead, once it was fitted anew, and every adapter version carries the
centroids that its own update moved. COMPASS, section 3.3.1. It fits nothing and knows no Ray.
"""

from compass_ray.watched_clusters.counts import coarse_counts, guide_fit, reference_record
from compass_ray.watched_clusters.in_use import FITTED, InUse, in_use, made_in, of_this_pool, use
from compass_ray.watched_clusters.line import parent, selections
from compass_ray.watched_clusters.moving import CENTRES, CENTROIDS, MOVED_COUNTS, Moved
from compass_ray.watched_clusters.places import Place, at_moved, clusterer_at, place_of
from compass_ray.watched_clusters.trained import TrainedRows, held_out

__all__ = [
    "CENTRES",
    "CENTROIDS",
    "FITTED",
    "MOVED_COUNTS",
    "InUse",
    "Moved",
    "Place",
    "TrainedRows",
    "at_moved",
    "clusterer_at",
    "coarse_counts",
    "guide_fit",
    "held_out",
    "in_use",
    "made_in",
    "of_this_pool",
    "parent",
    "place_of",
    "reference_record",
    "selections",
    "use",
]
