"""Centroids of clusters in the embeddings' own space, and the coarse cut over them."""

from __future__ import annotations

import numpy as np

from compass_ray.models.clusterers.protocol import Float32, Int32


def spherical_means(embeddings: Float32, labels: Int32, weights: Float32) -> Float32:
    """float32[K, d] unit-length weighted mean of each cluster's members; noise (-1) belongs to none."""
    k = int(labels.max()) + 1
    sums = np.zeros((k, embeddings.shape[1]))
    for cluster in range(k):
        members = np.flatnonzero(labels == cluster)
        sums[cluster] = weights[members].astype(np.float64) @ embeddings[members]
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: Float32 = (sums / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def coarse_cut(centroids: Float32, at_most: int) -> Int32:
    """int32[K] coarse cluster of each cluster, at most ``at_most`` of them, numbered in order of appearance (Ward).

    >>> coarse_cut(np.eye(3, dtype=np.float32), 8).tolist()
    [0, 1, 2]
    """
    k = len(centroids)
    if k <= at_most:
        return np.arange(k, dtype=np.int32)
    from scipy.cluster.hierarchy import fcluster, linkage

    raw = fcluster(linkage(centroids.astype(np.float64), "ward"), at_most, "maxclust")
    order = {value: i for i, value in enumerate(dict.fromkeys(raw.tolist()))}
    return np.array([order[value] for value in raw.tolist()], dtype=np.int32)
