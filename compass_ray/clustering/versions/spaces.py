"""Where the prompts of a language are placed: a clustering, and the centroids of the version that answers them.

Key property: a place has a mark that is equal for equal centroids, so a window says by one word whether it can be compared with a
reference. Which cluster is which never changes with its centroid. COMPASS, section 3.3.1, equation 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.artifacts import Artifact, ArtifactError, RunDir
from compass_ray.clustering import Clusterer, load_clusterer
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.clustering.serialization import ARRAYS_FILE, HEADER_FILE
from compass_ray.clustering.versions.incremental_kmeans import CENTRES_FILE, CENTROIDS_FILE
from compass_ray.records.references import ReferenceRecord

_DIGITS = 8


@dataclass(frozen=True)
class ClusterSpace:
    """A clustering by its name, and of a language the version whose centroids are used, None for those that were fitted."""

    clustering: str
    language: str | None = None
    version: str | None = None
    space_id: str = ""

    def __post_init__(self) -> None:
        """The mark of centroids as fitted is the clustering's name."""
        if not self.space_id:
            object.__setattr__(self, "space_id", self.clustering)


def resolve_space(run: RunDir, clusters: str, language: str, version: str | None) -> ClusterSpace:
    """Where prompts are placed while ``version`` is live: at its own centroids, if it has any in this clustering."""
    manifest = run.adapter(language, version).manifest() if version else None
    sums = {output.path: output.sha256 for output in manifest.outputs} if manifest else {}
    if version is None or CENTRES_FILE not in sums or _reference_clustering(run, language, version) != clusters:
        return ClusterSpace(clusters)
    return ClusterSpace(clusters, language, version, f"{clusters}:{sums[CENTRES_FILE][:_DIGITS]}")


def _reference_clustering(run: RunDir, language: str, version: str) -> str:
    return ReferenceRecord.read(run.adapter(language, version)).clusters


def load_space_clusterer(run: RunDir, place: ClusterSpace, fitted: Clusterer | None = None) -> Clusterer:
    """The clusterer of a place; ``fitted`` is that of its clustering, where it is at hand already.

    Raises:
        ArtifactError: the clustering is not whole, or has no centroids that could have been moved.
    """
    found = fitted or _load_fitted(run.reclustering(place.clustering))
    if place.version is None or place.language is None:
        return found
    return with_moved_centroids(found, run.adapter(place.language, place.version))


def _load_fitted(artifact: Artifact) -> Clusterer:
    artifact.require()
    with artifact.local_folder(HEADER_FILE, ARRAYS_FILE) as folder:
        return load_clusterer(folder)


def with_moved_centroids(clusterer: Clusterer, home: Artifact) -> KMeansClusterer:
    """The same clusters at the moved centroids that an artefact holds.

    Raises:
        ArtifactError: they are not of k-means.
    """
    if not isinstance(clusterer, KMeansClusterer):
        raise ArtifactError(f"{home.name} has moved centroids, and its clusters are not of k-means; remove {home.path}")
    return clusterer.with_centroids(home.read_array(CENTRES_FILE), home.read_array(CENTROIDS_FILE))
