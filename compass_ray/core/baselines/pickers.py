"""Pickers of baselines: uniform, all, the best, or rows of some languages (COMPASS, section 4.3).

A picker ignores clusters and gets the number of rows, so that every method can pick as many as COMPASS selects. Positions are
distinct; ties go to the earlier position.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray


@dataclass(frozen=True)
class PickedRows:
    """`position` int64[m] of the picked rows in order of picking, and the `score` float64[m] of each."""

    position: IntArray
    score: FloatArray


class Picker(Protocol):
    """Picks `count` candidates, or all that it can pick if there are fewer."""

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Positions and scores of the picked rows."""
        ...


@dataclass(frozen=True)
class UniformPicker:
    """Uniform sampling from `n` candidates.

    >>> UniformPicker(3)(5, np.random.default_rng(0)).position.tolist()
    [2, 0, 1]
    """

    n: int

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Draw without replacement."""
        drawn = rng.choice(self.n, size=min(count, self.n), replace=False).astype(np.int64)
        return PickedRows(drawn, np.ones(len(drawn)))


@dataclass(frozen=True)
class AllPicker:
    """All `n` candidates, whatever the requested number.

    >>> AllPicker(3)(1, np.random.default_rng(0)).position.tolist()
    [0, 1, 2]
    """

    n: int

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Return them in order of position."""
        return PickedRows(np.arange(self.n, dtype=np.int64), np.ones(self.n))


@dataclass(frozen=True)
class TopKPicker:
    """The candidates with the highest `scores` float64[n].

    >>> TopKPicker(np.array([0.2, 0.9, 0.9]))(2, np.random.default_rng(0)).position.tolist()
    [1, 2]
    """

    scores: FloatArray

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Take the best; nothing is drawn."""
        taken = np.argsort(-self.scores, kind="stable")[:count]
        return PickedRows(taken, self.scores[taken])


QUANTILES = 5
"""Parts of the candidates in the quantile test."""


@dataclass(frozen=True)
class QuantilePicker:
    """Uniform sampling from one of five equal parts of the candidates by `scores` float64[n]; part 1 has the highest.

    At most a fifth of the candidates, rounded down, is drawn, so that every part gives as many rows.

    >>> QuantilePicker(np.array([0.1, 0.5, 0.2, 0.4, 0.3]), 1)(3, np.random.default_rng(0)).position.tolist()
    [1]
    """

    scores: FloatArray
    quantile: int

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Draw without replacement."""
        part = np.array_split(np.argsort(-self.scores, kind="stable"), QUANTILES)[self.quantile - 1]
        drawn = part[rng.choice(len(part), size=min(count, len(self.scores) // QUANTILES), replace=False)]
        return PickedRows(drawn, self.scores[drawn])


@dataclass(frozen=True)
class UniformSubsetPicker:
    """Uniform sampling from the candidates with a score; `scores` float64[n] is NaN for excluded ones.

    >>> UniformSubsetPicker(np.array([0.5, np.nan, 0.7]))(9, np.random.default_rng(0)).position.tolist()
    [0, 2]
    """

    scores: FloatArray

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Draw without replacement among the candidates with a score."""
        allowed = np.flatnonzero(~np.isnan(self.scores))
        taken = allowed[UniformPicker(len(allowed))(count, rng).position]
        return PickedRows(taken, self.scores[taken])


@dataclass(frozen=True)
class SubsetPicker:
    """Every candidate with a score, whatever the requested number: all rows of the best transfer languages.

    >>> SubsetPicker(np.array([0.5, np.nan, 0.7]))(1, np.random.default_rng(0)).position.tolist()
    [0, 2]
    """

    scores: FloatArray

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Return them in order of position."""
        taken = np.flatnonzero(~np.isnan(self.scores))
        return PickedRows(taken, self.scores[taken])


@dataclass(frozen=True)
class PermutedPicker:
    """Another picker applied to the candidates in a given `order` int64[n], a permutation such as that of row_ids."""

    order: IntArray
    picker: Picker

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Pick with the other picker; return positions of the caller."""
        picked = self.picker(count, rng)
        return PickedRows(self.order[picked.position], picked.score)
