"""Select the earlier training rows that a strategy replays.

The sample depends only on the given generator and the rows, so an update that continues after a kill draws the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compass_ray.continual.strategies.table import ReplaySource, UpdateStrategy

MAX_FISHER_ROWS = 2_000
"""Maximum rows for the Fisher information of `ewc`; more rows are sampled, because each row needs its own gradient."""


@dataclass(frozen=True)
class ReplayRows:
    """Ids of earlier training rows, in training order."""

    rehearsed: tuple[str, ...]
    fisher: tuple[str, ...]
    """Rows that the Fisher information is computed from."""


def select_replay_rows(
    strategy: UpdateStrategy, anchors: Sequence[str], trained: Sequence[str], rng: np.random.Generator
) -> ReplayRows:
    """Select from ``trained`` (ids of all earlier training rows) the rows to rehearse and those for the Fisher information."""
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
