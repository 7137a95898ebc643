"""Whether traffic has left the reference or its clusters, as pure state machines (COMPASS, section 3.3)."""

from compass_ray.core.drift.decision import Decision, DriftState, Leg, Trigger
from compass_ray.core.drift.divergence import CalibratedTrigger, PaperTrigger, printed_reference
from compass_ray.core.drift.multi import MultiTrigger, Observed
from compass_ray.core.drift.performance import Signals
from compass_ray.core.drift.staleness import Aged, Bounds, Fit, Staleness, check_fit

__all__ = [
    "Aged",
    "Bounds",
    "CalibratedTrigger",
    "Decision",
    "DriftState",
    "Fit",
    "Leg",
    "MultiTrigger",
    "Observed",
    "PaperTrigger",
    "Signals",
    "Staleness",
    "Trigger",
    "check_fit",
    "printed_reference",
]
