"""What each strategy does, in one table (COMPASS, section 3.3.3 and appendix D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from torch import Tensor

from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import UpdateConfig
from compass_ray.models.chat_template import EncodedExample
from compass_ray.training.ecda import EcdaObjective


def build_objective(
    settings: UpdateConfig, initial: Path, *, rehearsed: Sequence[EncodedExample] = (), fisher: Mapping[str, Tensor] | None = None
) -> EcdaObjective:
    """The loss around the adapter in ``initial``; without rows and Fisher information that of the new rows alone."""
    return EcdaObjective(
        beta=settings.beta if rehearsed else 0.0,
        ewc_lambda=settings.ewc_lambda if fisher else 0.0,
        anchors=rehearsed,
        fisher=fisher or {},
        previous=read_adapter(initial).tensors,
    )


class ReplaySource(StrEnum):
    """Which of the rows trained on so far an update looks back at."""

    NONE = "none"
    ANCHORS = "anchors"
    RANDOM = "random"
    """As many as there are anchors, drawn from all."""
    ALL = "all"


@dataclass(frozen=True)
class UpdateStrategy:
    """Whether and from what an update starts, and what it looks back at."""

    trains: bool = True
    from_scratch: bool = False
    """From a fresh adapter on everything, with a selection for the old guide set and the window together."""
    rehearse_on: ReplaySource = ReplaySource.NONE
    elastic_on: ReplaySource = ReplaySource.NONE
    """Rows whose Fisher information ties the weights to what they were."""


STRATEGIES: Mapping[str, UpdateStrategy] = {
    "static": UpdateStrategy(trains=False),
    "naive": UpdateStrategy(),
    "full": UpdateStrategy(from_scratch=True),
    "ewc": UpdateStrategy(elastic_on=ReplaySource.ALL),
    "random_rehearsal": UpdateStrategy(rehearse_on=ReplaySource.RANDOM),
    "ecda": UpdateStrategy(rehearse_on=ReplaySource.ANCHORS, elastic_on=ReplaySource.ANCHORS),
}
"""By the names of ``update.strategy``."""
