"""Incremental k-means: move the centroids by the window of an update.

A cluster without prompts does not move. The window is counted with the moved centroids, which the new version keeps. COMPASS,
section 3.3.1, equation 2. Other clusterers have a fixed tree or fixed spheres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import Writer
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.core.distribution import cluster_counts

CENTRES_FILE, CENTROIDS_FILE = "centres.npy", "centroids.npy"
"""Files of a version that moved them or inherits them: in the space of comparison, and in that of the embeddings."""
MOVED_COUNTS_FILE = "moved_counts.json"
"""In the selection of an update: its window's prompts by cluster with these centroids, noise last."""


@dataclass(frozen=True)
class CentroidUpdate:
    """Centres float32[K, r], centroids float32[K, d], and the window's prompts by cluster: int64[K + 1], noise last."""

    centres: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]

    @classmethod
    def from_window(cls, clusterer: KMeansClusterer, window: npt.NDArray[np.float32], eta: float) -> CentroidUpdate:
        """Move the centres by ``eta`` towards a window's embeddings float32[n, d], then count the window."""
        moved = clusterer.with_updated_centroids(window, clusterer.assign(window), eta)
        return cls.unchanged(moved, moved.assign(window))

    @classmethod
    def unchanged(cls, clusterer: KMeansClusterer, labels: npt.NDArray[np.integer]) -> CentroidUpdate:
        """Keep the centres, with a window of known clusters int[n]."""
        return cls(clusterer.centres, clusterer.centroids, cluster_counts(labels, len(clusterer.centres)))

    def write(self, writer: Writer) -> None:
        """Write them into the selection of an update; the adapter reads them there."""
        writer.write_array(CENTRES_FILE, self.centres)
        writer.write_array(CENTROIDS_FILE, self.centroids)
        writer.write_json(MOVED_COUNTS_FILE, self.counts.tolist())
