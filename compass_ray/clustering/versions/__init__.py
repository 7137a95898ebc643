"""The cluster spaces in which traffic is counted: the active clustering, its centroids, and the training rows in it.

A count never mixes two clusterings or two sets of centroids. ``clusters`` and all selections made in it never change. After a
re-clustering, one pointer names the active clustering. Every adapter version stores the centroids that its own update moved.
COMPASS, section 3.3.1. Fits nothing and knows no Ray.
"""

from compass_ray.adapters.lineage import lineage_selections, parent_version
from compass_ray.clustering.versions.active import (
    INITIAL_CLUSTERING,
    ActiveClustering,
    clustering_of,
    is_of_current_pool,
    read_active,
    set_active,
)
from compass_ray.clustering.versions.incremental_kmeans import CENTRES_FILE, CENTROIDS_FILE, MOVED_COUNTS_FILE, CentroidUpdate
from compass_ray.clustering.versions.reference_counts import build_reference, count_by_coarse_cluster, measure_guide_fit
from compass_ray.clustering.versions.spaces import ClusterSpace, load_space_clusterer, resolve_space, with_moved_centroids
from compass_ray.clustering.versions.training_rows import TrainedRows, holdout_mask

__all__ = [
    "CENTRES_FILE",
    "CENTROIDS_FILE",
    "INITIAL_CLUSTERING",
    "MOVED_COUNTS_FILE",
    "ActiveClustering",
    "CentroidUpdate",
    "ClusterSpace",
    "TrainedRows",
    "build_reference",
    "clustering_of",
    "count_by_coarse_cluster",
    "holdout_mask",
    "is_of_current_pool",
    "lineage_selections",
    "load_space_clusterer",
    "measure_guide_fit",
    "parent_version",
    "read_active",
    "resolve_space",
    "set_active",
    "with_moved_centroids",
]
