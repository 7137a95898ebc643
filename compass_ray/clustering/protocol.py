"""Interface of a fitted clusterer, and records of a fit. No algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Clusterer(Protocol):
    """A fitted clustering of unit embeddings."""

    @property
    def labels(self) -> Int32:
        """int32[n] cluster of each fitted row, -1 for noise."""

    @property
    def centroids(self) -> Float32:
        """float32[K, d] spherical mean of each cluster's members, in the space of the embeddings."""

    def assign(self, embeddings: Float32) -> Int32:
        """int32[n] cluster of new rows float32[n, d], -1 for noise, without refitting.

        Raises:
            ModelError: the rows have another dimension, NaN, or only zeros.
        """

    def save(self, folder: Path) -> None:
        """Write the clusterer into ``folder``, as arrays and JSON."""


@dataclass(frozen=True)
class SweepCell:
    """One setting of a sweep. Higher scores are better."""

    parameters: Mapping[str, int | float | str]
    score: float
    n_clusters: int
    noise_share: float
    chosen: bool = False
    details: Mapping[str, float] = field(default_factory=dict)
    """Further measures of this setting, by name."""


def mark_best(cells: Sequence[SweepCell]) -> tuple[SweepCell, ...]:
    """Return the cells with the best one marked as chosen; the first of equals."""
    best = max(range(len(cells)), key=lambda i: cells[i].score)
    return tuple(replace(cell, chosen=i == best) for i, cell in enumerate(cells))


@dataclass(frozen=True)
class FitResult:
    """Result of one clustering method. ``strength`` float32[n] in [0, 1] is membership (0 for noise)."""

    clusterer: Clusterer
    strength: Float32
    sweep: tuple[SweepCell, ...]


@dataclass(frozen=True)
class FittedClusters:
    """A fit. ``strength`` float32[n] in [0, 1] is membership (0 for noise); ``coarse`` int32[K] merges clusters."""

    clusterer: Clusterer
    labels: Int32
    strength: Float32
    coarse: Int32
    sweep: tuple[SweepCell, ...]
    backend: str
    """``cpu`` or ``gpu``, which ran the fit."""
