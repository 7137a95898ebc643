"""Reference counts, which a version's traffic is compared with, from prompts and training rows.

The same rule applies to a new version and to one whose counts are recomputed in another clustering. COMPASS, section 3.3.2,
equation 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.clustering import Clusterer
from compass_ray.clustering.versions.training_rows import TrainedRows
from compass_ray.core.centroids import centroid_distances
from compass_ray.core.distribution import cluster_counts
from compass_ray.records.references import ReferenceRecord


def build_reference(
    trained: TrainedRows, prompt_clusters: npt.NDArray[np.int64], coarse: npt.NDArray[np.int32], clustering: str
) -> ReferenceRecord:
    """The content of ``reference.json``: counts by coarse cluster, noise last; training rows also by fine cluster.

    ``prompt_clusters`` int64[n] are the fine clusters of the guide prompts, or of the window that a version was made for.
    ``coarse`` int32[K] is the coarse cluster of each cluster of ``clustering``.
    """
    return ReferenceRecord(
        clusters=clustering,
        guide_counts=tuple(count_by_coarse_cluster(prompt_clusters, coarse)),
        selected_counts=tuple(count_by_coarse_cluster(trained.clusters[trained.added], coarse)),
        trained_counts=tuple(count_by_coarse_cluster(trained.clusters, coarse)),
        trained_fine=tuple(cluster_counts(trained.clusters, len(coarse)).tolist()),
    )


def measure_guide_fit(run: RunDir, language: str, clusterer: Callable[[], Clusterer]) -> dict[str, float]:
    """How well a language's guide prompts fit the clusters: mean distance to their centroids, share of noise.

    It uses the guide set for every version: an update for prompts that fit no cluster would otherwise make them the reference.
    Empty if the run has no embedded guide set.
    """
    embeddings = run.guide_embeddings(language)
    if embeddings.manifest() is None:
        return {}
    vectors = embeddings.read_embeddings()
    fitted = clusterer()
    labels = fitted.assign(vectors)
    distances = centroid_distances(vectors, fitted.centroids, labels)
    return {"guide_distance": float(distances.mean()), "guide_noise": float((labels < 0).mean())}


def count_by_coarse_cluster(labels: npt.NDArray[np.int64], coarse: npt.NDArray[np.int32]) -> list[int]:
    """Rows in each coarse cluster, noise last.

    >>> count_by_coarse_cluster(np.array([0, 2, -1]), np.array([0, 0, 1], np.int32))
    [1, 1, 1]
    """
    merged = np.where(labels >= 0, coarse[labels], -1)
    return [int(n) for n in cluster_counts(merged, int(coarse.max()) + 1)]
