"""Cluster spaces: a clustering, with the centroids of the version that answers the prompts.

`space_id` identifies a clustering plus its centroids. Counts are comparable only if their `space_id` is equal. The identity of
a cluster does not change when its centroid moves. COMPASS, section 3.3.1, equation 2.
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
    """A clustering, and the language and version with the used centroids; None for the fitted centroids."""

    clustering: str
    language: str | None = None
    version: str | None = None
    space_id: str = ""

    def __post_init__(self) -> None:
        """The id of the fitted centroids is the name of the clustering."""
        if not self.space_id:
            object.__setattr__(self, "space_id", self.clustering)


def resolve_space(run: RunDir, clustering: str, language: str, version: str | None) -> ClusterSpace:
    """The space of prompts while ``version`` is live: with its own centroids, if it has any in this clustering."""
    manifest = run.adapter(language, version).manifest() if version else None
    sums = {output.path: output.sha256 for output in manifest.outputs} if manifest else {}
    if version is None or CENTRES_FILE not in sums or _reference_clustering(run, language, version) != clustering:
        return ClusterSpace(clustering)
    return ClusterSpace(clustering, language, version, f"{clustering}:{sums[CENTRES_FILE][:_DIGITS]}")


def _reference_clustering(run: RunDir, language: str, version: str) -> str:
    return ReferenceRecord.read(run.adapter(language, version)).clusters


def load_space_clusterer(run: RunDir, space: ClusterSpace, fitted: Clusterer | None = None) -> Clusterer:
    """The clusterer of a space. ``fitted`` is the clusterer of its clustering, if it is already loaded.

    Raises:
        ArtifactError: the clustering is incomplete, or has no movable centroids.
    """
    clusterer = fitted or _load_fitted(run.reclustering(space.clustering))
    if space.version is None or space.language is None:
        return clusterer
    return with_moved_centroids(clusterer, run.adapter(space.language, space.version))


def _load_fitted(artifact: Artifact) -> Clusterer:
    artifact.require()
    with artifact.local_folder(HEADER_FILE, ARRAYS_FILE) as folder:
        return load_clusterer(folder)


def with_moved_centroids(clusterer: Clusterer, artifact: Artifact) -> KMeansClusterer:
    """The same clusters with the moved centroids in ``artifact``.

    Raises:
        ArtifactError: the clusters are not of k-means.
    """
    if not isinstance(clusterer, KMeansClusterer):
        raise ArtifactError(f"{artifact.name} has moved centroids, but its clusters are not of k-means; remove {artifact.path}")
    return clusterer.with_centroids(artifact.read_array(CENTRES_FILE), artifact.read_array(CENTROIDS_FILE))
