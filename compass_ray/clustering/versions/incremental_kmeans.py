"""Incremental k-means: what the window of an update makes of the centroids that its prompts were placed at.

Key property: a cluster without prompts stays where it is, and the window is counted at the very centroids that it moved, which
the new version keeps. COMPASS, section 3.3.1, equation 2. Other clusterers have a fixed tree or fixed spheres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import Writer
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.core.distribution import cluster_counts

CENTRES_FILE, CENTROIDS_FILE = "centres.npy", "centroids.npy"
"""Of a version whose update moved them, or that has them from its parent: in the space of comparison, and in the embeddings'."""
MOVED_COUNTS_FILE = "moved_counts.json"
"""Beside them in the selection of an update: prompts of its window by cluster at these centroids, noise last."""


@dataclass(frozen=True)
class CentroidUpdate:
    """Centres float32[K, r], centroids float32[K, d], and the window's prompts at them: counts int64[K + 1], noise last."""

    centres: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]

    @classmethod
    def from_window(cls, clusterer: KMeansClusterer, window: npt.NDArray[np.float32], eta: float) -> CentroidUpdate:
        """Drawn by ``eta`` to a window's embeddings float32[n, d], which is counted where it lies then."""
        drawn = clusterer.with_updated_centroids(window, clusterer.assign(window), eta)
        return cls.unchanged(drawn, drawn.assign(window))

    @classmethod
    def unchanged(cls, clusterer: KMeansClusterer, labels: npt.NDArray[np.integer]) -> CentroidUpdate:
        """As they are, with a window whose clusters int[n] at them are known."""
        return cls(clusterer.centres, clusterer.centroids, cluster_counts(labels, len(clusterer.centres)))

    def write(self, writer: Writer) -> None:
        """Write them into the selection of an update, from where its adapter takes them."""
        writer.write_array(CENTRES_FILE, self.centres)
        writer.write_array(CENTROIDS_FILE, self.centroids)
        writer.write_json(MOVED_COUNTS_FILE, self.counts.tolist())
