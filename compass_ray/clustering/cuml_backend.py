"""The heavy steps of clustering on a GPU, by cuML. Imported by `backends` alone, and only when it is used.

Key property: cuML says which rows are neighbours and which edges make the tree; the distances, in which its float32 products
are off by up to about 0.001 of a row's length, are taken again in float64. Relative validity, which it lacks, is read off the
tree like the CPU's.
"""

from __future__ import annotations

import numpy as np
from cuml.cluster import HDBSCAN, KMeans
from cuml.neighbors import NearestNeighbors

from compass_ray.clustering import spanning_tree as cpu_tree
from compass_ray.clustering.protocol import Float32, Float64

_BLURRED = 1e-3
"""Core distance, of the longest row, that float32 products cannot tell from 0. Where a row has more copies than min_samples,
cuML is known to end the whole process; such rows get the CPU's tree."""


class CumlBackend:
    """cuML; all rows at once, as far as the GPU's memory goes."""

    name = "gpu"

    def neighbour_distances(self, points: Float32, k: int) -> Float64:
        """See `backends.Backend`."""
        centred = points - points.mean(0)
        search = NearestNeighbors(n_neighbors=min(k + 1, len(points)), algorithm="brute", output_type="numpy").fit(centred)
        found = np.asarray(search.kneighbors(centred)[1], dtype=np.int64)
        return cpu_tree.distances_to(points, found)

    def spanning_tree(self, points: Float32, core: Float64, min_samples: int) -> Float64:
        """See `backends.Backend`; cuML takes the core distances anew, and like `hdbscan` does not count the row itself."""
        centred = points - points.mean(0)
        if core.min() <= _BLURRED * np.linalg.norm(centred, axis=1).max():
            return cpu_tree.spanning_tree(points, core)
        fitted = HDBSCAN(min_samples=min_samples, gen_min_span_tree=True, output_type="numpy").fit(centred)
        edges = np.asarray(fitted.minimum_spanning_tree_.to_numpy())[:, :2]
        return cpu_tree.weigh_edges(points, core, edges.astype(np.int64))

    def kmeans(self, points: Float32, k: int, n_init: int, seed: int) -> Float32:
        """See `backends.Backend`."""
        fitted = KMeans(n_clusters=k, init="k-means++", n_init=n_init, random_state=seed, output_type="numpy").fit(points)
        return np.asarray(fitted.cluster_centers_, dtype=np.float32)
