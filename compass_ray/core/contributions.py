"""Who contributes to whom: rows that were added for targets, by source, beside rows drawn at random (COMPASS, figure 4).

A large language gives many rows to every target. Lift divides the rows that it gave by those that it would give if as many rows
were drawn at random from the target's candidates. 1 is the chance level. Groups of languages add up rows of both kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_counts, as_labels


@dataclass(frozen=True)
class Contributions:
    """Rows float64[T, S] by target and source: `observed`, and `expected` if they were drawn at random from the candidates.

    Each row of both has the same sum. A target without candidates expects none.
    """

    observed: FloatArray
    expected: FloatArray

    @property
    def share(self) -> FloatArray:
        """float64[T, S]: part of the target's added rows; NaN without any."""
        return _ratio(self.observed, self.observed.sum(axis=1, keepdims=True))

    @property
    def expected_share(self) -> FloatArray:
        """float64[T, S]: part of the candidates, over targets by their added rows; NaN without any."""
        return _ratio(self.expected, self.expected.sum(axis=1, keepdims=True))

    @property
    def lift(self) -> FloatArray:
        """float64[T, S]: observed divided by expected; 1 is chance, NaN where none are expected."""
        return _ratio(self.observed, self.expected)

    def grouped(self, targets: npt.ArrayLike, sources: npt.ArrayLike) -> "Contributions":
        """The sums over groups, numbered from 0: of `targets` int[T] and of `sources` int[S]. -1 is in no group."""
        rows, columns = _membership(targets, self.observed.shape[0]), _membership(sources, self.observed.shape[1])
        return Contributions(rows.T @ self.observed @ columns, rows.T @ self.expected @ columns)

    def within(self, targets: Sequence[str], sources: Sequence[str]) -> "Contributions":
        """Rows float64[T, 1] from sources with the label of the target; an empty label is that of no other language."""
        same = np.array([[bool(label) and label == other for other in sources] for label in targets], np.float64)
        same = same.reshape(self.observed.shape)
        return Contributions((self.observed * same).sum(1, keepdims=True), (self.expected * same).sum(1, keepdims=True))


def contributions(added: npt.ArrayLike, pool: npt.ArrayLike, own: Sequence[int]) -> Contributions:
    """Compare `added` rows int[T, S] with the `pool`, rows int[S] of each source.

    A target's candidates are the pool without its own rows, those of source `own`, int[T]; -1 if it has none. ValueError on other
    shapes, and on rows from a source without candidates.

    >>> found = contributions([[0, 3, 1]], [50, 10, 30], [0])
    >>> found.expected.tolist(), found.lift[0, 1:].tolist()
    ([[0.0, 1.0, 3.0]], [3.0, 0.3333333333333333])
    """
    rows = np.asarray(added)
    sizes = as_counts(pool, "pool")
    if rows.shape != (len(own), len(sizes)):
        raise ValueError(f"added has shape {rows.shape}; expected ({len(own)}, {len(sizes)}), targets and sources.")
    counts = as_counts(rows.ravel(), "added").reshape(rows.shape)
    candidates = _candidates(sizes, own)
    if (counts[candidates == 0] > 0).any():
        raise ValueError("rows were added from a source without candidates; give the pool that they were selected from.")
    total = candidates.sum(axis=1, keepdims=True)
    expected = counts.sum(axis=1, keepdims=True) * candidates / np.maximum(total, 1)
    return Contributions(counts.astype(np.float64), expected)


def _candidates(pool: IntArray, own: Sequence[int]) -> IntArray:
    """int64[T, S]: the pool, with 0 for each target's own source."""
    found = np.tile(pool, (len(own), 1))
    for target, source in enumerate(own):
        if source >= 0:
            found[target, source] = 0
    return found


def _membership(groups: npt.ArrayLike, n: int) -> FloatArray:
    """float64[n, G]: 1 where a language is in a group."""
    names = np.asarray(groups)
    count = int(names.max(initial=-1)) + 1
    labels = as_labels(names, count, "groups")
    if len(labels) != n:
        raise ValueError(f"{len(labels)} groups for {n} languages; expected one for each.")
    return np.asarray(labels[:, None] == np.arange(count), dtype=np.float64)


def _ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    """a / b, NaN where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0))
