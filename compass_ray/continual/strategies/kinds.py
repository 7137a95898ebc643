"""What each strategy does, in one table (COMPASS, section 3.3.3 and appendix D)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Which of the rows trained on so far an update looks back at."""

    NONE = "none"
    ANCHORS = "anchors"
    RANDOM = "random"
    """As many as there are anchors, drawn from all."""
    ALL = "all"


@dataclass(frozen=True)
class Strategy:
    """Whether and from what an update starts, and what it looks back at."""

    trains: bool = True
    anew: bool = False
    """From a fresh adapter on everything, with a selection for the old guide set and the window together."""
    rehearses: Source = Source.NONE
    elastic_on: Source = Source.NONE
    """Rows whose Fisher information ties the weights to what they were."""


STRATEGIES: Mapping[str, Strategy] = {
    "static": Strategy(trains=False),
    "naive": Strategy(),
    "full": Strategy(anew=True),
    "ewc": Strategy(elastic_on=Source.ALL),
    "random_rehearsal": Strategy(rehearses=Source.RANDOM),
    "ecda": Strategy(rehearses=Source.ANCHORS, elastic_on=Source.ANCHORS),
}
"""By the names of ``update.strategy``."""
