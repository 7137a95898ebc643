"""The counts that a version's traffic is compared with, from what was asked and what was trained on.

Key property: one rule makes them for a version that was just trained and for one whose counts are made again in other clusters.
COMPASS, section 3.3.2, equation 3.
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
    trained: TrainedRows, asked: npt.NDArray[np.int64], coarse: npt.NDArray[np.int32], clusters: str
) -> ReferenceRecord:
    """The content of ``reference.json``: counts by coarse cluster, noise last, and those trained on also by fine cluster.

    ``asked`` int64[n] are the fine clusters of the guide prompts, or of the window that a version was made for; ``coarse``
    int32[K] is one a cluster of the clustering ``clusters``.
    """
    return ReferenceRecord(
        clusters=clusters,
        guide_counts=tuple(count_by_coarse_cluster(asked, coarse)),
        selected_counts=tuple(count_by_coarse_cluster(trained.clusters[trained.added], coarse)),
        trained_counts=tuple(count_by_coarse_cluster(trained.clusters, coarse)),
        trained_fine=tuple(cluster_counts(trained.clusters, len(coarse)).tolist()),
    )


def measure_guide_fit(run: RunDir, language: str, clusterer: Callable[[], Clusterer]) -> dict[str, float]:
    """How a language's guide prompts fit clusters, for a reference: mean distance to their centroids, share of noise.

    Of the guide set under every version: an update for prompts that fit no cluster would make them the measure. Empty where the
    run has no embedded guide set.
    """
    embedded = run.guide_embeddings(language)
    if embedded.manifest() is None:
        return {}
    vectors = embedded.read_embeddings()
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
