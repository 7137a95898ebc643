"""Triggers that a simulation compares: the configured one, and fixed thresholds.

All see the same streams. Thresholds "as printed" in the paper use the paper's reference (guide prompts plus selected rows)
and no cool-down. "Fixed" thresholds use the reference and schedule of the configured trigger, so that only the test differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compass_ray.config import DriftConfig
from compass_ray.core.drift import FixedThresholdTrigger, Trigger
from compass_ray.evaluation.simulation.drift.reference_policies import ReferencePolicy
from compass_ray.monitoring.drift_check import build_trigger

THRESHOLDS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
"""Thresholds of COMPASS, appendix D.2, table 11, in bits."""


@dataclass(frozen=True)
class TriggerVariant:
    """A trigger, its schedule, and its first reference.

    ``threshold`` is in bits; for a statistical test it is the minimum divergence.
    """

    name: str
    threshold: float
    trigger: Trigger
    drift: DriftConfig
    reference: ReferencePolicy


def build_trigger_variants(
    drift: DriftConfig, prompts_only: ReferencePolicy, paper: ReferencePolicy, thresholds: Sequence[float]
) -> list[TriggerVariant]:
    """The configured trigger first, then every threshold as printed, then every fixed threshold.

    ``prompts_only`` and ``paper`` are the first references without and with selected rows.
    """
    is_fixed = drift.trigger == "fixed_threshold"
    threshold, reference = (drift.threshold, paper) if is_fixed else (drift.min_divergence, prompts_only)
    configured = TriggerVariant(drift.trigger, threshold, build_trigger(drift), drift, reference)
    without_cooldown = drift.model_copy(update={"cooldown": 0})
    as_printed = [TriggerVariant("paper, as printed", t, FixedThresholdTrigger(t), without_cooldown, paper) for t in thresholds]
    fixed = [TriggerVariant("fixed threshold", t, FixedThresholdTrigger(t), drift, prompts_only) for t in thresholds]
    return [configured, *as_printed, *fixed]
