"""The table of update strategies, and the loss of an update (COMPASS, section 3.3.3 and appendix D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from torch import Tensor

from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import UpdateConfig
from compass_ray.models.chat_template import EncodedExample
from compass_ray.training.ecda import EcdaObjective
from compass_ray.training.fisher import divide_by_trace


def build_objective(
    settings: UpdateConfig, initial: Path, *, rehearsed: Sequence[EncodedExample] = (), fisher: Mapping[str, Tensor] | None = None
) -> EcdaObjective:
    """The loss of an update that starts from the adapter in ``initial``.

    Without rehearsal rows and Fisher information it is the loss of the new rows alone.
    """
    fisher = fisher or {}
    return EcdaObjective(
        beta=settings.beta if rehearsed else 0.0,
        ewc_lambda=settings.ewc_lambda if fisher else 0.0,
        anchors=rehearsed,
        fisher=divide_by_trace(fisher) if settings.fisher_scale == "trace" else fisher,
        previous=read_adapter(initial).tensors,
    )


class ReplaySource(StrEnum):
    """The earlier training rows that an update replays."""

    NONE = "none"
    ANCHORS = "anchors"
    RANDOM = "random"
    """As many random rows as there are anchors."""
    DRAWN = "drawn"
    """As many rows as there are anchors, drawn from all clusters in proportion to their rows."""
    HELD_OUT = "held_out"
    """Rows of the lineage that were held out from training."""
    ALL = "all"


@dataclass(frozen=True)
class UpdateStrategy:
    """Whether an update trains, from which adapter it starts, and what it replays."""

    trains: bool = True
    from_scratch: bool = False
    """Train a new adapter on all rows, with a selection for the old guide set and all windows together."""
    rehearse_on: ReplaySource = ReplaySource.NONE
    elastic_on: ReplaySource = ReplaySource.NONE
    """Rows whose Fisher information weights the penalty for changing parameters."""


STRATEGIES: Mapping[str, UpdateStrategy] = {
    "static": UpdateStrategy(trains=False),
    "naive": UpdateStrategy(),
    "full": UpdateStrategy(from_scratch=True),
    "ewc": UpdateStrategy(elastic_on=ReplaySource.ALL),
    "random_rehearsal": UpdateStrategy(rehearse_on=ReplaySource.RANDOM),
    "ecda": UpdateStrategy(rehearse_on=ReplaySource.ANCHORS, elastic_on=ReplaySource.ANCHORS),
}
"""The strategies by the values of ``update.strategy``."""


def resolve_strategy(settings: UpdateConfig) -> UpdateStrategy:
    """The strategy of the settings. ``ecda`` takes the rows that they name."""
    strategy = STRATEGIES[settings.strategy]
    if settings.strategy != "ecda":
        return strategy
    return replace(strategy, rehearse_on=ReplaySource(settings.replay), elastic_on=ReplaySource(settings.fisher_rows))
