"""The rows that a strategy looks back at.

Key property: what is drawn depends on the generator handed in and on the rows alone, so an update that goes on after a kill
draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compass_ray.continual.strategies.table import ReplaySource, UpdateStrategy

MAX_FISHER_ROWS = 2_000
"""Of more rows than these a sample informs `ewc`: their gradients are taken one by one."""


@dataclass(frozen=True)
class ReplayRows:
    """Ids of rows trained on so far, in their order there."""

    rehearsed: tuple[str, ...]
    fisher: tuple[str, ...]
    """Rows from which the Fisher information is taken."""


def select_replay_rows(
    strategy: UpdateStrategy, anchors: Sequence[str], trained: Sequence[str], rng: np.random.Generator
) -> ReplayRows:
    """Which of ``trained`` (ids of all rows trained on) a strategy rehearses, and which inform its elastic weights."""
    return ReplayRows(
        rehearsed=_rows(strategy.rehearse_on, anchors, trained, rng),
        fisher=_rows(strategy.elastic_on, anchors, trained, rng),
    )


def _rows(source: ReplaySource, anchors: Sequence[str], trained: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    distinct = list(dict.fromkeys(trained))
    match source:
        case ReplaySource.NONE:
            return ()
        case ReplaySource.ANCHORS:
            return tuple(anchors)
        case ReplaySource.RANDOM:
            return _sample(distinct, len(anchors), rng)
        case ReplaySource.ALL:
            return _sample(distinct, MAX_FISHER_ROWS, rng)


def _sample(rows: Sequence[str], count: int, rng: np.random.Generator) -> tuple[str, ...]:
    if len(rows) <= count:
        return tuple(rows)
    return tuple(rows[i] for i in np.sort(rng.choice(len(rows), count, replace=False)))
