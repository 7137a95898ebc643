"""The triggers that a simulation compares: the one that is configured, and fixed thresholds.

Key property: all walk the same streams. `paper` thresholds compare with the printed reference, guide prompts and selected rows,
and have no cool-down; `fixed` ones take the reference and the rhythm of the configured trigger, so that only the test differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compass_ray.config import DriftConfig
from compass_ray.core.drift import FixedThresholdTrigger, Trigger
from compass_ray.evaluation.simulation.drift.reference_policies import ReferencePolicy
from compass_ray.monitoring.drift_check import build_trigger

THRESHOLDS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
"""Of COMPASS, appendix D.2, table 11, in bits."""


@dataclass(frozen=True)
class TriggerVariant:
    """A trigger, its rhythm, and the reference that it starts from; ``threshold`` in bits, its floor where it tests."""

    name: str
    threshold: float
    trigger: Trigger
    drift: DriftConfig
    reference: ReferencePolicy


def build_trigger_variants(
    drift: DriftConfig, asked: ReferencePolicy, printed: ReferencePolicy, thresholds: Sequence[float]
) -> list[TriggerVariant]:
    """The configured trigger first, then every threshold in both ways."""
    own = build_trigger(drift)
    paper = drift.trigger == "fixed_threshold"
    first = TriggerVariant(
        drift.trigger, drift.threshold if paper else drift.min_divergence, own, drift, printed if paper else asked
    )
    restless = drift.model_copy(update={"cooldown": 0})
    as_printed = [TriggerVariant("paper, as printed", t, FixedThresholdTrigger(t), restless, printed) for t in thresholds]
    fixed = [TriggerVariant("fixed threshold", t, FixedThresholdTrigger(t), drift, asked) for t in thresholds]
    return [first, *as_printed, *fixed]
