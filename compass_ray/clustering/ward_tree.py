"""Ward's tree over points that represent several rows each, without a distance matrix.

Each merge adds the least to the within-cluster sum of squares, counted in rows. With one row per point the tree equals
scipy's. Memory is linear in points, time quadratic: only centres and sizes are stored. A nearest-neighbour chain finds the
same merges as a search of all pairs, because merging two clusters never brings a third one nearer to both. scipy and
scikit-learn support no initial sizes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compass_ray.clustering.protocol import Float64, Int64

_ROUNDING = 1e-12
"""Rounding error of a dot product of up to a few thousand numbers, relative to the squares it is subtracted from."""


def ward_tree(centres: npt.ArrayLike, sizes: npt.ArrayLike) -> Float64:
    """Merges float64[m - 1, 4] in the format of scipy's ``linkage``, of ``centres`` float[m, r] with ``sizes`` int[m] rows.

    Height of a merge of a and b: sqrt(2 n_a n_b / (n_a + n_b)) |c_a - c_b|; the last column counts points, not rows.

    >>> ward_tree([[0.0], [1.0], [5.0]], [1, 1, 1]).round(3).tolist()
    [[0.0, 1.0, 1.0, 2.0], [2.0, 3.0, 5.196, 3.0]]
    """
    chain = _NeighbourChain(np.array(centres, dtype=np.float64), np.array(sizes, dtype=np.float64))
    merges = [chain.merge() for _ in range(len(chain.centre) - 1)]
    return _renumber_merges(np.array(merges, dtype=np.float64).reshape(-1, 3))


class _NeighbourChain:
    """The remaining clusters, and a chain of nearest neighbours that ends at two mutual ones."""

    def __init__(self, centre: Float64, size: Float64) -> None:
        self.centre, self.size, self.square = centre, size, np.einsum("ij,ij->i", centre, centre)
        self.alive, self.point = np.ones(len(centre), np.bool_), np.arange(len(centre))
        self.chain: list[int] = []

    def merge(self) -> tuple[int, int, float]:
        """Merge the next pair. Return the point ids of both clusters, and the height."""
        if 2 * np.count_nonzero(self.alive) < len(self.alive):
            self._drop_merged()
        if not self.chain:
            self.chain.append(int(self.alive.argmax()))
        while True:
            last, before = self.chain[-1], self.chain[-2] if len(self.chain) > 1 else -1
            other, height = self._nearest(last, before)
            if other == before:
                break
            self.chain.append(other)
        del self.chain[-2:]
        self._join(last, other)
        return int(self.point[last]), int(self.point[other]), height

    def _nearest(self, one: int, before: int) -> tuple[int, float]:
        """The nearest other cluster; ``before`` if it is equally near, which ends a chain."""
        weight = 2 * self.size * self.size[one] / (self.size + self.size[one])
        both = self.square + self.square[one]
        rough, error = (both - 2 * (self.centre @ self.centre[one])) * weight, _ROUNDING * both * weight
        rough[~self.alive] = np.inf
        rough[one] = np.inf
        # One product finds the candidates. Only these are measured without cancellation, symmetrically from both ends.
        near = np.flatnonzero(rough - error <= (rough + error).min())
        difference = self.centre[near] - self.centre[one]
        squared = np.einsum("ij,ij->i", difference, difference) * weight[near]
        index = int(squared.argmin())
        if before in near and squared[near == before][0] <= squared[index]:
            return before, float(np.sqrt(squared[index]))
        return int(near[index]), float(np.sqrt(squared[index]))

    def _join(self, a: int, b: int) -> None:
        total = self.size[a] + self.size[b]
        self.centre[b] += (self.centre[a] - self.centre[b]) * (self.size[a] / total)
        self.size[b], self.square[b] = total, self.centre[b] @ self.centre[b]
        self.alive[a] = False

    def _drop_merged(self) -> None:
        alive, new_index = self.alive, np.cumsum(self.alive) - 1
        self.chain = [int(new_index[i]) for i in self.chain]
        self.centre, self.size, self.square = self.centre[alive], self.size[alive], self.square[alive]
        self.point, self.alive = self.point[alive], self.alive[alive]


def _renumber_merges(merges: Float64) -> Float64:
    """Merges in order of height, with each cluster under the number of the merge that created it."""
    merges = merges[np.argsort(merges[:, 2], kind="stable")]
    m = len(merges) + 1
    number, count = np.arange(2 * m - 1), np.ones(2 * m - 1, np.int64)
    tree = np.empty((m - 1, 4))
    parent: Int64 = np.arange(m)
    for i, (a, b, height) in enumerate(merges):
        one, two = _root(parent, int(a)), _root(parent, int(b))
        low, high = sorted((number[one], number[two]))
        count[m + i] = count[low] + count[high]
        tree[i] = low, high, height, count[m + i]
        parent[one] = two
        number[two] = m + i
    return tree


def _root(parent: Int64, point: int) -> int:
    while parent[point] != point:
        parent[point] = parent[parent[point]]
        point = int(parent[point])
    return point
