"""Drift triggers: whether a window of prompts has left the reference, as pure state machines (COMPASS, section 3.3.2)."""

from compass_ray.core.drift.decision import Decision, DriftState, Leg, Trigger
from compass_ray.core.drift.divergence import CalibratedTrigger, PaperTrigger, printed_reference
from compass_ray.core.drift.multi import MultiTrigger, Observed
from compass_ray.core.drift.performance import Signals

__all__ = [
    "CalibratedTrigger",
    "Decision",
    "DriftState",
    "Leg",
    "MultiTrigger",
    "Observed",
    "PaperTrigger",
    "Signals",
    "Trigger",
    "printed_reference",
]
