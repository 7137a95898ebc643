"""Centroids of clusters in the space of the embeddings, and coarse clusters over them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from compass_ray.clustering.partition import mini_batch_labels
from compass_ray.clustering.pca import fit_pca
from compass_ray.clustering.protocol import Float32, Float64, Int32, Int64
from compass_ray.clustering.ward_tree import ward_tree

_EXACT = 4_000
"""Maximum number of centroids with a full distance matrix: 64 MB."""
_FEW_DIMENSIONS = 64


def spherical_means(embeddings: Float32, labels: Int32, weights: Float32) -> Float32:
    """float32[K, d] unit-length weighted mean of each cluster's members; noise (-1) counts nowhere."""
    sums = np.zeros((int(labels.max()) + 1, embeddings.shape[1]))
    for cluster, members in enumerate(_members(labels)):
        sums[cluster] = weights[members].astype(np.float64) @ embeddings[members]
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: Float32 = (sums / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def cluster_means(points: Float32, labels: Int32) -> Float64:
    """float64[K, r] mean of each cluster's members, in the space of ``points`` float32[n, r].

    >>> cluster_means(np.array([[0.0], [2.0], [5.0], [9.0]], np.float32), np.array([0, 0, 1, -1])).tolist()
    [[1.0], [5.0]]
    """
    return np.array([points[members].mean(0, dtype=np.float64) for members in _members(labels)])


def _members(labels: Int32) -> list[Int64]:
    """Ascending row numbers int64 of each cluster."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(int(labels.max()) + 2))
    return [order[start:stop] for start, stop in pairwise(bounds.tolist())]


def coarse_cut(centroids: Float32, at_most: int) -> Int32:
    """int32[K] coarse cluster of each cluster by Ward, at most ``at_most`` of them, numbered in order of appearance.

    >>> coarse_cut(np.eye(3, dtype=np.float32), 8).tolist()
    [0, 1, 2]
    """
    k = len(centroids)
    if k <= at_most:
        return np.arange(k, dtype=np.int32)
    from scipy.cluster.hierarchy import fcluster, linkage

    if k > _EXACT:
        return _renumber(_cut_groups(centroids, at_most))
    return _renumber(fcluster(linkage(centroids.astype(np.float64), "ward"), at_most, "maxclust"))


def _cut_groups(centroids: Float32, at_most: int) -> Int32:
    """Ward's cut of thousands of centroids: on groups of them, in fewer dimensions."""
    from scipy.cluster.hierarchy import fcluster

    points = fit_pca(centroids, _FEW_DIMENSIONS)(centroids)
    group = mini_batch_labels(points, _EXACT // 2, seed=0)
    cut: Int32 = fcluster(ward_tree(cluster_means(points, group), np.bincount(group)), at_most, "maxclust")
    return cut[group]


def _renumber(raw: Int32) -> Int32:
    order = {value: i for i, value in enumerate(dict.fromkeys(raw.tolist()))}
    return np.array([order[value] for value in raw.tolist()], dtype=np.int32)
