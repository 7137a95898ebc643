"""Density-based clustering validation (DBCV) of a density clustering, from the rows themselves (Moulavi et al. 2014).

    core(x)    = (mean over the other rows y of x's cluster of |x - y|^-d) ^ (-1/d), in d dimensions
    reach(x,y) = max(core(x), core(y), |x - y|)
    validity   = sum over clusters of |C| / n * (separation - sparseness) / max(separation, sparseness)

A row is inner if it has two or more edges in its cluster's spanning tree of reach. Sparseness is the longest edge between
inner rows. Separation is the smallest reach from an inner row to an inner row of another cluster.

Powers of d are computed in logarithms of distances relative to the nearest row, so that hundreds of dimensions neither
overflow nor underflow. The result is exact up to `MAX_ROWS` rows; above, each cluster is sampled. The largest array is a
block of 256 rows against the sample, 10 MB. It scores settings on one data set (COMPASS, appendix E). `relative_validity` is
the cheaper estimate from the spanning tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compass_ray.clustering.protocol import Float32, Float64, Int32, Int64

MAX_ROWS = 5_000
"""Maximum number of compared rows, or two per cluster if that is more."""
_MIN_CLUSTER_ROWS = 10
"""Rows that a cluster keeps before the rest is distributed by size."""
_BLOCK = 256
_COPY = 1e-12
"""Squared distance relative to squared lengths below which float64 products cannot distinguish two rows."""


@dataclass(frozen=True)
class _InnerRows:
    """The inner rows float64[m, d] of a cluster, their core distances float64[m], and its sparseness."""

    rows: Float64
    core: Float64
    sparseness: float


def dbcv(points: Float32, labels: Int32, *, rows: int = MAX_ROWS, seed: int = 0) -> float:
    """Validity in [-1, 1] of ``labels`` int32[n] on points float32[n, d]; noise (-1) and clusters of one row count as 0.

    Fewer than two clusters have no separation and get -1. A row with a copy in its cluster has core distance 0, the limit
    of its formula. In a cluster without inner rows, all rows count as inner.

    >>> points = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]], np.float32)
    >>> round(dbcv(points, np.array([0, 0, 0, 1, 1, 1], np.int32)), 4)
    0.8667
    """
    members = [np.flatnonzero(labels == cluster) for cluster in np.unique(labels[labels >= 0])]
    members = [each for each in members if len(each) > 1]
    if len(members) < 2:
        return -1.0
    share = np.array([len(each) for each in members]) / len(labels)
    centre = points.mean(0, dtype=np.float64)
    inner = [_inner(points[each] - centre) for each in subsample_clusters(members, rows, np.random.default_rng(seed))]
    sparseness, separation = np.array([each.sparseness for each in inner]), _separations(inner)
    worse = np.maximum(separation, sparseness)
    return float(np.sum(share * (separation - sparseness) / np.where(worse > 0, worse, 1.0)))


def subsample_clusters(members: list[Int64], at_most: int, rng: np.random.Generator) -> list[Int64]:
    """Ascending rows of each cluster, at most ``at_most`` in total (or two per cluster); small clusters lose least."""
    sizes = np.array([len(each) for each in members])
    if sizes.sum() <= at_most:
        return members
    minimum = np.minimum(sizes, np.clip(at_most // len(sizes), 2, _MIN_CLUSTER_ROWS))
    spare = max(at_most - int(minimum.sum()), 0)
    quota = minimum + spare * (sizes - minimum) // max(int((sizes - minimum).sum()), 1)
    return [np.sort(rng.permutation(each)[:count]) for each, count in zip(members, quota, strict=True)]


def core_distances(points: Float64) -> Float64:
    """All-points core distance float64[n] of each row float64[n, d], n > 1, of one cluster."""
    n, d = points.shape
    core, lengths = np.empty(n), _lengths(points)
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        squares = _squares(points[part], lengths[part], points, lengths)
        indices = np.arange(len(squares))
        squares[indices, start + indices] = np.inf
        nearest = squares.min(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.exp(d / 2 * (np.log(nearest)[:, None] - np.log(squares)))
            far = (relative.sum(1) / (n - 1)) ** (-1 / d)
        core[part] = np.where(nearest > 0, np.sqrt(nearest) * far, 0.0)
    return core


def _inner(points: Float64) -> _InnerRows:
    core = core_distances(points)
    ends, lengths = minimum_spanning_tree(points, core)
    inner = np.bincount(ends.ravel(), minlength=len(points)) > 1
    between = inner[ends].all(1)
    retained = inner if inner.any() else np.ones(len(points), bool)
    return _InnerRows(points[retained], core[retained], float(lengths[between if between.any() else slice(None)].max()))


def minimum_spanning_tree(points: Float64, core: Float64) -> tuple[Int64, Float64]:
    """Edges int64[n - 1, 2] of the minimum spanning tree of reach, and their reach float64[n - 1] (Prim).

    Many edges have equal length, because core distances determine them. Among equals the edge with the denser end is taken. So
    the tree does not depend on the order of rows, and its inner rows are the dense ones.
    """
    n, squared = len(points), _lengths(points)
    reach, densest, source = np.full(n, np.inf), np.full(n, np.inf), np.zeros(n, np.int64)
    outside = np.ones(n, bool)
    edges, lengths, row = np.empty((n - 1, 2), np.int64), np.empty(n - 1), 0
    for step in range(n - 1):
        outside[row] = False
        reach[row] = np.inf
        through = np.sqrt(_squares(points[row], squared[row], points, squared))
        through = np.maximum(np.maximum(through, core), core[row])
        denser = np.minimum(core, core[row])
        closer = outside & ((through < reach) | ((through == reach) & (denser < densest)))
        reach[closer], densest[closer], source[closer] = through[closer], denser[closer], row
        nearest = np.flatnonzero(reach == reach.min())
        row = int(nearest[densest[nearest].argmin()])
        edges[step], lengths[step] = (source[row], row), reach[row]
    return edges, lengths


def _separations(clusters: list[_InnerRows]) -> Float64:
    """float64[K] smallest reach from each cluster to any other."""
    rows, core = np.concatenate([each.rows for each in clusters]), np.concatenate([each.core for each in clusters])
    owner = np.repeat(np.arange(len(clusters)), [len(each.core) for each in clusters])
    separation, lengths = np.full(len(clusters), np.inf), _lengths(rows)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        reach = np.sqrt(_squares(rows[part], lengths[part], rows, lengths))
        np.maximum(reach, core[part, None], out=reach)
        np.maximum(reach, core, out=reach)
        reach[owner[part, None] == owner] = np.inf
        np.minimum.at(separation, owner[part], reach.min(1))
    return separation


def _lengths(rows: Float64) -> Float64:
    """float64[n] squared lengths."""
    lengths: Float64 = np.einsum("nd,nd->n", rows, rows)
    return lengths


def _squares(some: Float64, some_lengths: Float64, rows: Float64, lengths: Float64) -> Float64:
    """Squared distances from some rows float64[m, d], or one [d], to all float64[n, d]; 0 for copies."""
    both = np.add.outer(some_lengths, lengths)
    squares: Float64 = both - 2 * (some @ rows.T)
    squares[squares < _COPY * both] = 0.0
    return squares
