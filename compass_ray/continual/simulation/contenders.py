"""The triggers that a simulation compares: the one that is configured, and fixed thresholds.

Key property: all walk the same streams. `paper` thresholds compare with the printed reference, guide prompts and selected rows,
and have no cool-down; `fixed` ones take the reference and the rhythm of the configured trigger, so that only the test differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compass_ray.config import DriftConfig
from compass_ray.continual.simulation.references import Reference
from compass_ray.core.drift import PaperTrigger, Trigger
from compass_ray.serving.monitoring.checks import build_trigger

THRESHOLDS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
"""Of COMPASS, appendix D.2, table 11, in bits."""


@dataclass(frozen=True)
class Contender:
    """A trigger, its rhythm, and the reference that it starts from; ``threshold`` in bits, its floor where it tests."""

    name: str
    threshold: float
    trigger: Trigger
    drift: DriftConfig
    reference: Reference


def contenders(drift: DriftConfig, asked: Reference, printed: Reference, thresholds: Sequence[float]) -> list[Contender]:
    """The configured trigger first, then every threshold in both ways."""
    own = build_trigger(drift)
    paper = drift.trigger == "paper"
    first = Contender(drift.trigger, drift.threshold if paper else drift.floor, own, drift, printed if paper else asked)
    restless = drift.model_copy(update={"cooldown": 0})
    as_printed = [Contender("paper, as printed", t, PaperTrigger(t), restless, printed) for t in thresholds]
    fixed = [Contender("fixed threshold", t, PaperTrigger(t), drift, asked) for t in thresholds]
    return [first, *as_printed, *fixed]
