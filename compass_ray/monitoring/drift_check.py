"""One drift check of a watch: the trigger of a configuration, a version's reference, and what a check comes to.

Key property: the generator is seeded by language and prompt count, so a check that is made again decides
the same. COMPASS, section 3.3.2. The triggers themselves are `core.drift`, the lines that are kept `records`.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np

from compass_ray.clustering.versions import INITIAL_CLUSTERING
from compass_ray.config import DriftConfig
from compass_ray.core.distribution import noise_share
from compass_ray.core.drift import (
    ClusterFit,
    CombinedTrigger,
    DriftDecision,
    FixedThresholdTrigger,
    ObservedSample,
    PermutationTestTrigger,
    QualitySignals,
    StalenessBounds,
    StalenessState,
    Trigger,
    check_staleness,
    paper_reference,
)
from compass_ray.core.drift.quality_tests import MinEffects
from compass_ray.core.seeds import generator
from compass_ray.monitoring.audit_records import DecisionInputs, check_record, drift_record, stale_record
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState, Phase, ReferenceDistribution
from compass_ray.monitoring.reply_quality import RatingLookup, signals_from_record
from compass_ray.records.references import ReferenceRecord


def build_trigger(drift: DriftConfig) -> Trigger:
    """The trigger of a configuration; its cool-down, given in prompts, is counted in checks."""
    checks = math.ceil(drift.cooldown / drift.check_every)
    if drift.trigger == "fixed_threshold":
        return FixedThresholdTrigger(threshold=drift.threshold, cooldown=checks)
    rate, floor, rest = drift.false_alarm_rate, drift.min_divergence, (drift.consecutive_checks, checks, drift.permutations)
    if drift.trigger == "permutation_test":
        return PermutationTestTrigger(rate, floor, *rest)
    return CombinedTrigger(
        rate, floor, MinEffects(drift.min_loss_increase, drift.min_bad_feedback_increase, drift.min_canary_accuracy_drop), *rest
    )


def build_staleness_bounds(drift: DriftConfig) -> StalenessBounds:
    """The bounds of a configuration beyond which clusters are stale."""
    return StalenessBounds(drift.stale_noise_excess, drift.stale_distance_ratio, drift.consecutive_checks)


def build_reference(
    drift: DriftConfig, version: str, found: ReferenceRecord, place: str = INITIAL_CLUSTERING
) -> ReferenceDistribution | None:
    """The reference of an adapter version from its record: guide counts, or the printed one for the paper's trigger."""
    guide = np.asarray(found.guide_counts, dtype=np.int64)
    if not guide.sum():
        return None
    counts = paper_reference(guide, found.selected_counts) if drift.trigger == "fixed_threshold" else guide
    noise = noise_share(guide) if found.guide_noise is None else found.guide_noise  # older runs have neither
    fit = ClusterFit(noise, found.guide_distance)
    return ReferenceDistribution(version, counts, fit, place)


def check_event(
    watch: LanguageMonitorState, reference: ReferenceDistribution, trigger: Trigger, ratings: RatingLookup, seed: int, now: float
) -> Event:
    """Compare the window with the reference; the event carries the lines for the checks and decisions files.

    An alarm counts only while the language is watched, not while its window for an update is being collected.
    """
    case = DecisionInputs(
        seed=(seed, "drift", watch.language, watch.seen),
        state=watch.trigger,
        reference=ObservedSample(reference.counts, signals_from_record(watch.baseline) if watch.baseline else QualitySignals()),
        window=ObservedSample(watch.counts(len(reference.counts) - 1), watch.reply_signals(ratings)),
    )
    decision = _decide(trigger, case)
    alarm = decision.alarm and watch.phase is Phase.MONITORING
    line = check_record(watch, decision, now)
    return {
        "event": "check",
        "language": watch.language,
        "trigger": asdict(decision.state),
        "alarm": alarm,
        "line": line.to_json(),
        "decision": drift_record(line, trigger, case, decision).to_json() if alarm else None,
    }


def staleness_event(
    watch: LanguageMonitorState, guide: ClusterFit, bounds: StalenessBounds, clusters: str | None, now: float
) -> Event:
    """Compare how the window fits the clusters, by their fingerprint, with how the guide set does.

    The event carries a line for the decisions file where they have become stale.
    """
    before = watch.staleness if watch.clusters == clusters else StalenessState()
    found = check_staleness(before, guide, ClusterFit(watch.noise() or 0.0, watch.distance()), bounds)
    return {
        "event": "staleness",
        "language": watch.language,
        "clusters": clusters,
        "state": asdict(found.after),
        "decision": stale_record(watch, found, now).to_json() if found.became_stale else None,
    }


def _decide(trigger: Trigger, case: DecisionInputs) -> DriftDecision:
    rng = generator(*case.seed)
    if isinstance(trigger, CombinedTrigger):
        return trigger.check_with_signals(case.state, case.reference, case.window, rng)
    return trigger.check(case.state, case.reference.counts, case.window.counts, rng)
