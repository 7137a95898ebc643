"""Drift triggers and cluster staleness as pure state machines (COMPASS, section 3.3)."""

from compass_ray.core.drift.cluster_staleness import ClusterFit, StalenessBounds, StalenessCheck, StalenessState, check_staleness
from compass_ray.core.drift.combined_trigger import CombinedTrigger, ObservedSample
from compass_ray.core.drift.divergence_triggers import FixedThresholdTrigger, PermutationTestTrigger, paper_reference
from compass_ray.core.drift.quality_tests import QualitySignals
from compass_ray.core.drift.trigger import DriftDecision, DriftState, StatTestResult, Trigger

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
