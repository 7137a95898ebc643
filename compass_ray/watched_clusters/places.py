"""Where the prompts of a language are placed: a clustering, and the centroids of the version that answers them.

Key property: a place has a mark that is equal for equal centroids, so a window says by one word whether it can be compared with a
reference. Which cluster is which never changes with its centroid. COMPASS, section 3.3.1, equation 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.artifacts import Artifact, ArtifactError, RunDir
from compass_ray.models.clusterers import Clusterer, load_clusterer
from compass_ray.models.clusterers.kmeans import KMeansClusterer
from compass_ray.models.clusterers.storage import ARRAYS, MARK
from compass_ray.watched_clusters.in_use import FITTED
from compass_ray.watched_clusters.moving import CENTRES, CENTROIDS

_DIGITS = 8


@dataclass(frozen=True)
class Place:
    """A clustering by its name, and of a language the version whose centroids are used, None for those that were fitted."""

    clusters: str
    language: str | None = None
    version: str | None = None
    mark: str = ""

    def __post_init__(self) -> None:
        """The mark of centroids as fitted is the clustering's name."""
        if not self.mark:
            object.__setattr__(self, "mark", self.clusters)


def place_of(run: RunDir, clusters: str, language: str, version: str | None) -> Place:
    """Where prompts are placed while ``version`` is live: at its own centroids, if it has any in this clustering."""
    manifest = run.adapter(language, version).manifest() if version else None
    sums = {output.path: output.sha256 for output in manifest.outputs} if manifest else {}
    if version is None or CENTRES not in sums or _counted_in(run, language, version) != clusters:
        return Place(clusters)
    return Place(clusters, language, version, f"{clusters}:{sums[CENTRES][:_DIGITS]}")


def _counted_in(run: RunDir, language: str, version: str) -> str:
    return str(run.adapter(language, version).read_json("reference.json").get("clusters", FITTED))


def clusterer_at(run: RunDir, place: Place, fitted: Clusterer | None = None) -> Clusterer:
    """The clusterer of a place; ``fitted`` is that of its clustering, where it is at hand already.

    Raises:
        ArtifactError: the clustering is not whole, or has no centroids that could have been moved.
    """
    found = fitted or _fitted(run.refitted(place.clusters))
    if place.version is None or place.language is None:
        return found
    return at_moved(found, run.adapter(place.language, place.version))


def _fitted(artifact: Artifact) -> Clusterer:
    artifact.require()
    with artifact.local(MARK, ARRAYS) as folder:
        return load_clusterer(folder)


def at_moved(clusterer: Clusterer, home: Artifact) -> KMeansClusterer:
    """The same clusters at the moved centroids that an artefact holds.

    Raises:
        ArtifactError: they are not of k-means.
    """
    if not isinstance(clusterer, KMeansClusterer):
        raise ArtifactError(f"{home.name} has moved centroids, and its clusters are not of k-means; remove {home.path}")
    return clusterer.at(home.read_array(CENTRES), home.read_array(CENTROIDS))
