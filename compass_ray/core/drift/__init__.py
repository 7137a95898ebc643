"""Whether traffic has left the reference or its clusters, as pure state machines (COMPASS, section 3.3)."""

from compass_ray.core.drift.decision import DriftDecision, DriftState, StatTestResult, Trigger
from compass_ray.core.drift.divergence import FixedThresholdTrigger, PermutationTestTrigger, paper_reference
from compass_ray.core.drift.multi import CombinedTrigger, ObservedSample
from compass_ray.core.drift.performance import QualitySignals
from compass_ray.core.drift.staleness import ClusterFit, StalenessBounds, StalenessCheck, StalenessState, check_staleness

__all__ = [
    "ClusterFit",
    "CombinedTrigger",
    "DriftDecision",
    "DriftState",
    "FixedThresholdTrigger",
    "ObservedSample",
    "PermutationTestTrigger",
    "QualitySignals",
    "StalenessBounds",
    "StalenessCheck",
    "StalenessState",
    "StatTestResult",
    "Trigger",
    "check_staleness",
    "paper_reference",
]
