"""How a baseline takes rows from all candidates: alike, the best, by weight, or from some languages (COMPASS, section 4.3).

Key property: a picker knows nothing of clusters and is asked for a number of rows, so that every method can take as many
as COMPASS does. Positions are distinct, and equal scores go to the earlier position.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray


@dataclass(frozen=True)
class PickedRows:
    """`position` int64[m] of the rows taken, in order of taking, and the `score` float64[m] they were taken by."""

    position: IntArray
    score: FloatArray


class Picker(Protocol):
    """Takes `count` candidates, or as many as it can take where these are fewer."""

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Positions of the rows taken."""
        ...


@dataclass(frozen=True)
class UniformPicker:
    """All `n` candidates alike, as under random sampling.

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
    """All `n` candidates, whatever number is asked for.

    >>> AllPicker(3)(1, np.random.default_rng(0)).position.tolist()
    [0, 1, 2]
    """

    n: int

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Take them in order of position."""
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


@dataclass(frozen=True)
class UniformSubsetPicker:
    """The candidates that have a score, alike; `scores` float64[n] is NaN for those that may not be taken.

    >>> UniformSubsetPicker(np.array([0.5, np.nan, 0.7]))(9, np.random.default_rng(0)).position.tolist()
    [0, 2]
    """

    scores: FloatArray

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Draw without replacement among those that may be taken."""
        allowed = np.flatnonzero(~np.isnan(self.scores))
        taken = allowed[UniformPicker(len(allowed))(count, rng).position]
        return PickedRows(taken, self.scores[taken])


@dataclass(frozen=True)
class SubsetPicker:
    """Every candidate that has a score, whatever number is asked for: all data of the best transfer languages.

    >>> SubsetPicker(np.array([0.5, np.nan, 0.7]))(1, np.random.default_rng(0)).position.tolist()
    [0, 2]
    """

    scores: FloatArray

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Take them in order of position."""
        taken = np.flatnonzero(~np.isnan(self.scores))
        return PickedRows(taken, self.scores[taken])


@dataclass(frozen=True)
class PermutedPicker:
    """Another picker that sees the candidates in a given `order` int64[n], a permutation, as of their row_ids."""

    order: IntArray
    picker: Picker

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Take as the other picker does, with positions as the caller knows them."""
        picked = self.picker(count, rng)
        return PickedRows(self.order[picked.position], picked.score)
