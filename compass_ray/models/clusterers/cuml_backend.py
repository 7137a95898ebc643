"""The heavy steps of clustering on a GPU, by cuML. Imported by `backends` alone, and only when it is used."""

from __future__ import annotations

import numpy as np
from cuml.cluster import HDBSCAN, KMeans
from cuml.neighbors import NearestNeighbors

from compass_ray.models.clusterers.protocol import Float32, Float64


class CumlBackend:
    """cuML; all rows at once, as far as the GPU's memory goes."""

    name = "gpu"

    def neighbour_distances(self, points: Float32, k: int) -> Float64:
        """See `backends.Backend`."""
        search = NearestNeighbors(n_neighbors=min(k + 1, len(points)), algorithm="brute", output_type="numpy").fit(points)
        return np.asarray(search.kneighbors(points)[0], dtype=np.float64)

    def spanning_tree(self, points: Float32, core: Float64, min_samples: int) -> Float64:
        """See `backends.Backend`; cuML takes the core distances anew from ``min_samples``."""
        fitted = HDBSCAN(min_samples=min_samples, gen_min_span_tree=True, output_type="numpy").fit(points)
        edges = np.asarray(fitted.minimum_spanning_tree_.to_numpy(), dtype=np.float64)[:, :3]
        edges[:, 2] = np.maximum(edges[:, 2], edges[:, 2].max() * 1e-6)
        return edges[np.argsort(edges[:, 2], kind="stable")]

    def kmeans(self, points: Float32, k: int, n_init: int, seed: int) -> Float32:
        """See `backends.Backend`."""
        fitted = KMeans(n_clusters=k, n_init=n_init, random_state=seed, output_type="numpy").fit(points)
        return np.asarray(fitted.cluster_centers_, dtype=np.float32)
