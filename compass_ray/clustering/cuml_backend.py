"""The expensive steps of clustering on a GPU with cuML. Only `backends` imports it, when it is used.

cuML finds the neighbours and the edges of the tree. Distances are recomputed in float64, because cuML's float32 products have
errors of up to about 0.001 of a row's length. cuML has no relative validity; it is computed from the tree as on the CPU.
"""

from __future__ import annotations

import numpy as np
from cuml.cluster import HDBSCAN, KMeans
from cuml.neighbors import NearestNeighbors

from compass_ray.clustering import spanning_tree as cpu_tree
from compass_ray.clustering.protocol import Float32, Float64

_BLURRED = 1e-3
"""Core distance, relative to the longest row, that float32 products cannot distinguish from 0.

If a row has more copies than min_samples, cuML is known to crash the process; such rows use the CPU's tree.
"""


class CumlBackend:
    """cuML on all rows at once, limited by the GPU's memory."""

    name = "gpu"

    def neighbour_distances(self, points: Float32, k: int) -> Float64:
        """See `ClusteringBackend`."""
        centred = points - points.mean(0)
        search = NearestNeighbors(n_neighbors=min(k + 1, len(points)), algorithm="brute", output_type="numpy").fit(centred)
        neighbours = np.asarray(search.kneighbors(centred)[1], dtype=np.int64)
        return cpu_tree.distances_to(points, neighbours)

    def spanning_tree(self, points: Float32, core: Float64, min_samples: int) -> Float64:
        """See `ClusteringBackend`. cuML recomputes core distances and, like `hdbscan`, does not count the row itself."""
        centred = points - points.mean(0)
        if core.min() <= _BLURRED * np.linalg.norm(centred, axis=1).max():
            return cpu_tree.spanning_tree(points, core)
        fitted = HDBSCAN(min_samples=min_samples, gen_min_span_tree=True, output_type="numpy").fit(centred)
        edges = np.asarray(fitted.minimum_spanning_tree_.to_numpy())[:, :2]
        return cpu_tree.weigh_edges(points, core, edges.astype(np.int64))

    def kmeans(self, points: Float32, k: int, n_init: int, seed: int) -> Float32:
        """See `ClusteringBackend`."""
        fitted = KMeans(n_clusters=k, init="k-means++", n_init=n_init, random_state=seed, output_type="numpy").fit(points)
        return np.asarray(fitted.cluster_centers_, dtype=np.float32)
