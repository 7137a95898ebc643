"""Sphere exclusion as Taylor and Butina have it: the point with most neighbours takes them all, and so on.

Key property: neighbours are counted and taken by blocks of dot products, so that neither a matrix nor lists of neighbours
of all points are held. Points with equally many neighbours go in order of their coordinates: the order of rows
decides nothing. COMPASS, appendix E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.clustering.protocol import Float32, Int32, Int64

_BLOCK_CELLS = 2_000_000
_AHEAD = 64
"""Centres whose similarities are computed in one product, before it is known whether an earlier one takes them."""
_SINGLETON = -2


@dataclass(frozen=True)
class Spheres:
    """``labels`` int32[n], -1 for singletons; ``centres`` int64[K] are the rows that the clusters grew around."""

    labels: Int32
    centre_rows: Int64

    @property
    def assigned_share(self) -> float:
        """Share of rows that are no singletons."""
        return float(np.mean(self.labels >= 0))


def count_neighbours(points: Float32, thresholds: Sequence[float]) -> Int64:
    """int64[T, n]: points at cosine similarity of at least each threshold, itself among them.

    ``points`` are unit rows float32[n, r], ``thresholds`` ascend.

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
    waiting = _order(points, counts)
    while len(waiting := waiting[labels[waiting] == -1]):
        ahead = waiting[:_AHEAD]
        taken = points[ahead] @ points[waiting].T >= np.float32(threshold)
        for centre, near in zip(ahead.tolist(), taken, strict=True):
            _take(centre, waiting[near], labels, centres)
    labels[labels == _SINGLETON] = -1
    return Spheres(labels, np.array(centres, dtype=np.int64))


def _take(centre: int, near: Int64, labels: Int32, centres: list[int]) -> None:
    """Make a cluster of what is still free among the points near a centre, if that is not the centre alone."""
    if labels[centre] != -1:
        return
    members = near[labels[near] == -1]
    if len(members) > 1:
        labels[members] = len(centres)
        centres.append(centre)
    labels[centre] = labels[centre] if len(members) > 1 else _SINGLETON


def _order(points: Float32, counts: Int64) -> Int64:
    """Points with neighbours, most of them first."""
    social = np.flatnonzero(counts > 1)
    keys: tuple[npt.NDArray[np.generic], ...] = (*points[social].T[::-1], -counts[social])
    return social[np.lexsort(keys)]
