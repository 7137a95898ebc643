"""Select the earlier rows that a strategy replays.

The sample depends only on the given generator and the rows, so an update that continues after a kill draws the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.continual.strategies.table import ReplaySource, UpdateStrategy
from compass_ray.core.anchors import draw_by_cluster

MAX_FISHER_ROWS = 2_000
"""Maximum rows for the Fisher information of `ewc`; more rows are sampled, because each row needs its own gradient."""


@dataclass(frozen=True)
class EarlierRows:
    """Ids of the rows of a lineage; a row of several versions occurs several times."""

    anchors: Sequence[str]
    trained: Sequence[str]
    """All rows that were trained on."""
    clusters: npt.NDArray[np.int64]
    """int64[n]: fine cluster of each trained row, -1 for noise."""
    held_out: Sequence[str] = ()
    """Rows of its selections that were held out from training."""


@dataclass(frozen=True)
class ReplayRows:
    """Ids of earlier rows, in training order."""

    rehearsed: tuple[str, ...]
    fisher: tuple[str, ...]
    """Rows that the Fisher information is computed from."""


def select_replay_rows(strategy: UpdateStrategy, earlier: EarlierRows, rng: np.random.Generator) -> ReplayRows:
    """Select the rows to rehearse and those for the Fisher information."""
    return ReplayRows(
        rehearsed=_rows(strategy.rehearse_on, earlier, rng),
        fisher=_rows(strategy.elastic_on, earlier, rng),
    )


def _rows(source: ReplaySource, earlier: EarlierRows, rng: np.random.Generator) -> tuple[str, ...]:
    match source:
        case ReplaySource.NONE:
            return ()
        case ReplaySource.ANCHORS:
            return tuple(earlier.anchors)
        case ReplaySource.RANDOM:
            return _sample(earlier.trained, len(earlier.anchors), rng)
        case ReplaySource.DRAWN:
            return _draw(earlier, rng)
        case ReplaySource.HELD_OUT:
            return _sample(earlier.held_out, MAX_FISHER_ROWS, rng)
        case ReplaySource.ALL:
            return _sample(earlier.trained, MAX_FISHER_ROWS, rng)


def _draw(earlier: EarlierRows, rng: np.random.Generator) -> tuple[str, ...]:
    first = {row: i for i, row in reversed(list(enumerate(earlier.trained)))}
    indices = sorted(first.values())
    drawn = draw_by_cluster(earlier.clusters[indices], len(earlier.anchors), rng)
    return tuple(earlier.trained[indices[i]] for i in drawn)


def _sample(rows: Sequence[str], count: int, rng: np.random.Generator) -> tuple[str, ...]:
    distinct = list(dict.fromkeys(rows))
    if len(distinct) <= count:
        return tuple(distinct)
    return tuple(distinct[i] for i in np.sort(rng.choice(len(distinct), count, replace=False)))
