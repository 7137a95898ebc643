"""State of one cluster's sampling: drawn rows with their scores, remaining rows, and equation 1 of COMPASS.

The samplers in `stochastic` and `deterministic` choose rows; both use equation 1 from here.
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

    `position` int64[quota] into the candidates. `score` float64[quota]: the score of each draw, without the penalty if
    every remaining score was 0, and 1 in uniform mode. `neighbours` int64[quota]: earlier drawn rows with cosine above
    tau, each of which lowered the score by delta; 0 without a penalty.
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
        """alpha^2 of equation 1 after `drawn` draws."""
        return (drawn / self.quota) ** 2

    def mixture(self, among: IntArray | None = None) -> FloatArray:
        """Equation 1 at the next draw without the penalty, for every candidate or those in `among`: float64."""
        return _mix_scores(self.boundary_weight, *self._scores(among))

    def max_mixture(self, draws: int) -> FloatArray:
        """Maximum of `mixture` during the next `draws` draws, float64[n].

        Equation 1 is linear in alpha^2, so the maximum is at the first or the last of these draws.
        """
        last = self.boundary_weight_after(min(self.n_drawn + draws, self.quota) - 1)
        return np.maximum(self.mixture(), _mix_scores(last, self.proto, self.boundary))

    def _scores(self, among: IntArray | None) -> tuple[FloatArray, FloatArray]:
        return (self.proto, self.boundary) if among is None else (self.proto[among], self.boundary[among])

    def record_draw(self, position: int, score: float, neighbours: int, vector: Float32Array) -> None:
        """Record a draw of the row at `position` with unit embedding `vector` (d,)."""
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
        """Draw without the penalty inside the block; neighbours are still counted."""
        delta, self.delta = self.delta, 0.0
        try:
            yield
        finally:
            self.delta = delta

    def result(self) -> SampledRows:
        """The drawn rows in order."""
        return SampledRows(
            np.array(self._position, np.int64),
            np.array(self._score, np.float64),
            np.array(self._neighbours, np.int64),
        )


def _mix_scores(late: float, proto: FloatArray, boundary: FloatArray) -> FloatArray:
    return np.asarray((1.0 - late) * proto + late * boundary)
