"""The record of one cluster's sampling while it runs: what is drawn, by what score, and what is left.

Holds no rule of choice; `stochastic` and `deterministic` choose, this module keeps equation 1 of COMPASS in
one place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from compass_ray.core.array_checks import BoolArray, Float32Array, FloatArray, IntArray
from compass_ray.core.near_duplicates import DrawnNeighbours


@dataclass(frozen=True)
class SampledRows:
    """Rows in order of drawing.

    `position` int64[quota] into the candidates; `score` float64[quota], the s by which each was drawn
    (without the penalty where every remaining score was 0; 1 in uniform mode); `neighbours` int64[quota], how
    many rows within tau had been drawn before it, each of which cost it delta (0 where there is no penalty to
    count for).
    """

    position: IntArray
    score: FloatArray
    neighbours: IntArray


class SamplingState:
    """One cluster being sampled: fixed scores `proto`, `boundary` float64[n], and the rows drawn so far."""

    def __init__(self, proto: FloatArray, boundary: FloatArray, quota: int, delta: float, near: DrawnNeighbours) -> None:
        self.proto, self.boundary = proto, boundary
        self.quota, self.delta, self.near = quota, delta, near
        self.undrawn: BoolArray = np.ones(len(proto), np.bool_)
        self._position: list[int] = []
        self._score: list[float] = []
        self._neighbours: list[int] = []

    @property
    def n_drawn(self) -> int:
        """Rows drawn so far."""
        return len(self._position)

    @property
    def is_done(self) -> bool:
        """Whether the quota is reached."""
        return self.n_drawn >= self.quota

    @property
    def boundary_weight(self) -> float:
        """alpha^2 of equation 1 at the next draw: the weight of the boundary score, in [0, 1)."""
        return self.boundary_weight_after(self.n_drawn)

    def boundary_weight_after(self, drawn: int) -> float:
        """alpha^2 of equation 1 after so many draws."""
        return (drawn / self.quota) ** 2

    def mixture(self, among: IntArray | None = None) -> FloatArray:
        """Equation 1 at the next draw, before the penalty, for every candidate or those named: float64."""
        return _mix_scores(self.boundary_weight, *self._scores(among))

    def max_mixture(self, draws: int) -> FloatArray:
        """The highest that `mixture` gets during the next `draws` draws, float64[n].

        Equation 1 is linear in alpha^2, so that is its value at one of the two ends.
        """
        last = self.boundary_weight_after(min(self.n_drawn + draws, self.quota) - 1)
        return np.maximum(self.mixture(), _mix_scores(last, self.proto, self.boundary))

    def _scores(self, among: IntArray | None) -> tuple[FloatArray, FloatArray]:
        return (self.proto, self.boundary) if among is None else (self.proto[among], self.boundary[among])

    def record_draw(self, position: int, score: float, neighbours: int, vector: Float32Array) -> None:
        """Draw the row at `position`, whose unit embedding is `vector` (d,)."""
        self._position.append(position)
        self._score.append(score)
        self._neighbours.append(neighbours)
        self.undrawn[position] = False
        self.near.add(vector)

    def refresh(self) -> None:
        """Count the drawn neighbours of every remaining candidate exactly."""
        self.near.refresh(np.flatnonzero(self.undrawn))

    @contextmanager
    def without_penalty(self) -> Iterator[None]:
        """Draw without the penalty for a while; neighbours are still counted."""
        kept, self.delta = self.delta, 0.0
        try:
            yield
        finally:
            self.delta = kept

    def result(self) -> SampledRows:
        """What was drawn, in order."""
        return SampledRows(
            np.array(self._position, np.int64),
            np.array(self._score, np.float64),
            np.array(self._neighbours, np.int64),
        )


def _mix_scores(late: float, proto: FloatArray, boundary: FloatArray) -> FloatArray:
    return np.asarray((1.0 - late) * proto + late * boundary)
