"""The minimum spanning tree of mutual reachability, exact (Campello et al. 2013).

    d_mreach(a, b) = max(core(a), core(b), |a - b|)

The tree depends only on min_samples, so every min_cluster_size uses the same tree. Prim's algorithm with one matrix-vector
product per step; it needs no n x n matrix and no compiler. At 12,000 x 30 on one core a tree takes 0.5 s. The hdbscan package
takes 3.5 to 6 s, and fast_hdbscan 8 s after 17 s of compiling in every new process.
"""

from __future__ import annotations

import numpy as np

from compass_ray.clustering.protocol import Float32, Float64, Int64

_BLOCK = 1024
_NOT_ZERO = 1e-12
"""Distance between equal rows if all rows are equal."""


def neighbour_distances(points: Float32, k: int) -> Float64:
    """float64[n, k + 1] distances to the nearest rows, the row itself first."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(k + 1, len(points)), algorithm="brute").fit(points.astype(np.float64))
    distances = search.kneighbors(points.astype(np.float64))[0]
    return np.asarray(distances, dtype=np.float64)


def distances_to(points: Float32, neighbours: Int64) -> Float64:
    """float64[n, k] ascending distances from each row float32[n, d] to the rows ``neighbours`` int64[n, k], in float64.

    The row itself is first, even if ``neighbours`` lacks it.
    """
    distance = np.empty(neighbours.shape)
    for start in range(0, len(points), _BLOCK):
        part = slice(start, start + _BLOCK)
        difference = points[part, None].astype(np.float64) - points[neighbours[part]]
        distance[part] = np.linalg.norm(difference, axis=2)
    is_self = neighbours == np.arange(len(points))[:, None]
    distance[~is_self.any(1), -1] = 0.0
    distance.sort(axis=1)
    return distance


def spanning_tree(points: Float32, core: Float64) -> Float64:
    """float64[n - 1, 3] edges (row, row, distance), by ascending distance.

    ``points`` are float32[n, d], ``core`` float64[n] core distances.
    """
    n = len(points)
    # Centring keeps the squares small, and so the float32 rounding error of |a|^2 - 2ab + |b|^2.
    x = points - points.mean(0)
    squares = np.einsum("nd,nd->n", x, x)
    core2 = np.square(core).astype(np.float32)
    ids = np.arange(n)
    best = np.full(n, np.inf, np.float32)
    source = np.zeros(n, np.int64)
    edges = np.empty((n - 1, 2), np.int64)
    taken = 0
    for left in range(n - 1, 0, -1):
        current, v, square, near = ids[taken], x[taken].copy(), squares[taken], core2[taken]
        # The last active row fills the gap, so the active rows remain a contiguous prefix.
        for array in (x, squares, core2, ids, best, source):
            array[taken] = array[left]
        distance = x[:left] @ v
        distance *= -2
        distance += squares[:left]
        distance += square
        np.maximum(distance, core2[:left], out=distance)
        np.maximum(distance, near, out=distance)
        closer = distance < best[:left]
        np.copyto(best[:left], distance, where=closer)
        np.copyto(source[:left], current, where=closer)
        taken = int(best[:left].argmin())
        edges[left - 1] = source[taken], ids[taken]
    return weigh_edges(points, core, edges)


def weigh_edges(points: Float32, core: Float64, edges: Int64) -> Float64:
    """float64[n - 1, 3] of ``edges`` int64[n - 1, 2]: distances computed in float64, none of them zero, ascending."""
    a, b = edges[:, 0], edges[:, 1]
    length = np.linalg.norm(points[a].astype(np.float64) - points[b], axis=1)
    distance = np.maximum(length, np.maximum(core[a], core[b]))
    # Copies of a row have distance 0, and a stability cannot use its inverse.
    distance = np.maximum(distance, max(distance.max() * 1e-6, _NOT_ZERO))
    order = np.argsort(distance, kind="stable")
    return np.column_stack([a, b, distance])[order]
