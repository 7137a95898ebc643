"""Sphere exclusion of Taylor and Butina: the point with most neighbours takes them all, and so on.

Neighbours are counted and taken in blocks of dot products, so no full matrix or neighbour list is stored. Points with equally
many neighbours are ordered by their coordinates, so the order of rows has no effect. COMPASS, appendix E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.clustering.protocol import Float32, Int32, Int64

_BLOCK_CELLS = 2_000_000
_AHEAD = 64
"""Centres with similarities computed in one product, before it is known whether an earlier centre takes them."""
_SINGLETON = -2


@dataclass(frozen=True)
class Spheres:
    """``labels`` int32[n], -1 for singletons; ``centre_rows`` int64[K] are the rows at the centres of the clusters."""

    labels: Int32
    centre_rows: Int64

    @property
    def assigned_share(self) -> float:
        """Fraction of rows that are not singletons."""
        return float(np.mean(self.labels >= 0))


def count_neighbours(points: Float32, thresholds: Sequence[float]) -> Int64:
    """int64[T, n]: number of points with at least each threshold of cosine similarity, including the point itself.

    ``points`` are unit rows float32[n, r]; ``thresholds`` are ascending.

    >>> count_neighbours(np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32), [0.5, 0.7]).tolist()
    [[2, 3, 2], [2, 2, 1]]
    """
    n, grades = len(points), len(thresholds) + 1
    counts = np.empty((len(thresholds), n), np.int64)
    block = max(1, _BLOCK_CELLS // n)
    for start in range(0, n, block):
        similar = (points[start : start + block] @ points.T).ravel()
        near = np.flatnonzero(similar >= np.float32(thresholds[0]))
        grade = np.searchsorted(np.asarray(thresholds, np.float32), similar[near], side="right")
        rows = len(similar) // n
        table = np.bincount((near // n) * grades + grade, minlength=rows * grades).reshape(rows, grades)
        counts[:, start : start + rows] = table[:, ::-1].cumsum(1)[:, :-1][:, ::-1].T
    return counts


def grow_spheres(points: Float32, counts: Int64, threshold: float) -> Spheres:
    """Spheres of one threshold, given its ``counts`` int64[n]; numbered in order of their centres' counts."""
    labels = np.full(len(points), -1, np.int32)
    centres: list[int] = []
    pending = _order(points, counts)
    while len(pending := pending[labels[pending] == -1]):
        ahead = pending[:_AHEAD]
        taken = points[ahead] @ points[pending].T >= np.float32(threshold)
        for centre, near in zip(ahead.tolist(), taken, strict=True):
            _take(centre, pending[near], labels, centres)
    labels[labels == _SINGLETON] = -1
    return Spheres(labels, np.array(centres, dtype=np.int64))


def _take(centre: int, near: Int64, labels: Int32, centres: list[int]) -> None:
    """Create a cluster from the unassigned points near a centre, unless only the centre is left."""
    if labels[centre] != -1:
        return
    members = near[labels[near] == -1]
    if len(members) > 1:
        labels[members] = len(centres)
        centres.append(centre)
    labels[centre] = labels[centre] if len(members) > 1 else _SINGLETON


def _order(points: Float32, counts: Int64) -> Int64:
    """Points with neighbours, those with most neighbours first."""
    with_neighbours = np.flatnonzero(counts > 1)
    keys: tuple[npt.NDArray[np.generic], ...] = (*points[with_neighbours].T[::-1], -counts[with_neighbours])
    return with_neighbours[np.lexsort(keys)]
