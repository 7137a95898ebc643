"""Ward's tree over points that stand for several rows each, without a matrix of distances.

Key property: each merge is the one that adds least to the sum of squares within clusters, counted in rows; with one row
a point the tree is scipy's. Only centres and sizes are held (memory linear in points, time quadratic): a nearest-neighbour
chain finds the same merges as a search of all pairs, because merging two clusters never brings a third one nearer to
both. scipy and scikit-learn take no sizes to start from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compass_ray.clustering.protocol import Float64, Int64

_ROUNDING = 1e-12
"""Of a dot product of up to some thousand numbers, relative to the squares it is subtracted from."""


def ward_tree(centres: npt.ArrayLike, sizes: npt.ArrayLike) -> Float64:
    """Merges float64[m - 1, 4] as scipy's ``linkage`` has them, of ``centres`` float[m, r] with ``sizes`` int[m] rows.

    Height of a merge of a and b: sqrt(2 n_a n_b / (n_a + n_b)) |c_a - c_b|; the last column counts points, not rows.

    >>> ward_tree([[0.0], [1.0], [5.0]], [1, 1, 1]).round(3).tolist()
    [[0.0, 1.0, 1.0, 2.0], [2.0, 3.0, 5.196, 3.0]]
    """
    chain = _NeighbourChain(np.array(centres, dtype=np.float64), np.array(sizes, dtype=np.float64))
    merges = [chain.merge() for _ in range(len(chain.centre) - 1)]
    return _renumber_merges(np.array(merges, dtype=np.float64).reshape(-1, 3))


class _NeighbourChain:
    """Clusters that are left, and a chain of nearest neighbours among them that ends where two are each other's."""

    def __init__(self, centre: Float64, size: Float64) -> None:
        self.centre, self.size, self.square = centre, size, np.einsum("ij,ij->i", centre, centre)
        self.alive, self.point = np.ones(len(centre), np.bool_), np.arange(len(centre))
        self.chain: list[int] = []

    def merge(self) -> tuple[int, int, float]:
        """Merge the next pair; the points that the two were kept under, and the height."""
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
        """The nearest other cluster, ``before`` where it is as near as any, which is what ends a chain."""
        weight = 2 * self.size * self.size[one] / (self.size + self.size[one])
        both = self.square + self.square[one]
        rough, error = (both - 2 * (self.centre @ self.centre[one])) * weight, _ROUNDING * both * weight
        rough[~self.alive] = np.inf
        rough[one] = np.inf
        # One product finds who may be nearest; only those are measured without its cancellation, and alike from both ends.
        near = np.flatnonzero(rough - error <= (rough + error).min())
        apart = self.centre[near] - self.centre[one]
        squared = np.einsum("ij,ij->i", apart, apart) * weight[near]
        at = int(squared.argmin())
        if before in near and squared[near == before][0] <= squared[at]:
            return before, float(np.sqrt(squared[at]))
        return int(near[at]), float(np.sqrt(squared[at]))

    def _join(self, a: int, b: int) -> None:
        total = self.size[a] + self.size[b]
        self.centre[b] += (self.centre[a] - self.centre[b]) * (self.size[a] / total)
        self.size[b], self.square[b] = total, self.centre[b] @ self.centre[b]
        self.alive[a] = False

    def _drop_merged(self) -> None:
        kept, place = self.alive, np.cumsum(self.alive) - 1
        self.chain = [int(place[i]) for i in self.chain]
        self.centre, self.size, self.square = self.centre[kept], self.size[kept], self.square[kept]
        self.point, self.alive = self.point[kept], self.alive[kept]


def _renumber_merges(merges: Float64) -> Float64:
    """Merges of kept points in order of height, each cluster under the number of the merge that made it."""
    merges = merges[np.argsort(merges[:, 2], kind="stable")]
    m = len(merges) + 1
    number, count = np.arange(2 * m - 1), np.ones(2 * m - 1, np.int64)
    tree = np.empty((m - 1, 4))
    above: Int64 = np.arange(m)
    for i, (a, b, height) in enumerate(merges):
        one, two = _root(above, int(a)), _root(above, int(b))
        low, high = sorted((number[one], number[two]))
        count[m + i] = count[low] + count[high]
        tree[i] = low, high, height, count[m + i]
        above[one] = two
        number[two] = m + i
    return tree


def _root(above: Int64, point: int) -> int:
    while above[point] != point:
        above[point] = above[above[point]]
        point = int(above[point])
    return point
