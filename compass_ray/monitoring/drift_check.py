"""One drift check of a language: build the trigger and the reference, compare, and return the result as an event.

The generator is seeded by language and prompt count, so a repeated check gives the same result. The triggers are in
`core.drift`. COMPASS, section 3.3.2.
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
    """The configured trigger. Its cool-down is configured in prompts and counted in checks."""
    cooldown = math.ceil(drift.cooldown / drift.check_every)
    if drift.trigger == "fixed_threshold":
        return FixedThresholdTrigger(threshold=drift.threshold, cooldown=cooldown)
    rate, floor, rest = drift.false_alarm_rate, drift.min_divergence, (drift.consecutive_checks, cooldown, drift.permutations)
    if drift.trigger == "permutation_test":
        return PermutationTestTrigger(rate, floor, *rest)
    return CombinedTrigger(
        rate, floor, MinEffects(drift.min_loss_increase, drift.min_bad_feedback_increase, drift.min_canary_accuracy_drop), *rest
    )


def build_staleness_bounds(drift: DriftConfig) -> StalenessBounds:
    """The configured limits beyond which clusters are stale."""
    return StalenessBounds(drift.stale_noise_excess, drift.stale_distance_ratio, drift.consecutive_checks)


def build_reference(
    drift: DriftConfig, version: str, record: ReferenceRecord, space_id: str = INITIAL_CLUSTERING
) -> ReferenceDistribution | None:
    """The reference of an adapter version: its guide counts, or the paper's reference for ``fixed_threshold``."""
    guide = np.asarray(record.guide_counts, dtype=np.int64)
    if not guide.sum():
        return None
    counts = paper_reference(guide, record.selected_counts) if drift.trigger == "fixed_threshold" else guide
    noise = noise_share(guide) if record.guide_noise is None else record.guide_noise  # older runs have neither
    fit = ClusterFit(noise, record.guide_distance)
    return ReferenceDistribution(version, counts, fit, space_id)


def check_event(
    state: LanguageMonitorState, reference: ReferenceDistribution, trigger: Trigger, ratings: RatingLookup, seed: int, now: float
) -> Event:
    """Compare the window with the reference; the event contains the records for ``checks.jsonl`` and ``decisions.jsonl``.

    An alarm counts only in phase MONITORING, not while a window for an update is collected.
    """
    inputs = DecisionInputs(
        seed=(seed, "drift", state.language, state.num_prompts),
        state=state.trigger,
        reference=ObservedSample(reference.counts, signals_from_record(state.baseline) if state.baseline else QualitySignals()),
        window=ObservedSample(state.counts(len(reference.counts) - 1), state.reply_signals(ratings)),
    )
    decision = _decide(trigger, inputs)
    alarm = decision.alarm and state.phase is Phase.MONITORING
    check = check_record(state, decision, now)
    return {
        "event": "check",
        "language": state.language,
        "trigger": asdict(decision.state),
        "alarm": alarm,
        "line": check.to_json(),
        "decision": drift_record(check, trigger, inputs, decision).to_json() if alarm else None,
    }


def staleness_event(
    state: LanguageMonitorState, guide: ClusterFit, bounds: StalenessBounds, clusters: str | None, now: float
) -> Event:
    """Compare how well the window and the guide set fit the clusters with fingerprint ``clusters``.

    The event contains a record for ``decisions.jsonl`` if the clusters became stale.
    """
    previous = state.staleness if state.clusters == clusters else StalenessState()
    staleness = check_staleness(previous, guide, ClusterFit(state.noise() or 0.0, state.distance()), bounds)
    return {
        "event": "staleness",
        "language": state.language,
        "clusters": clusters,
        "state": asdict(staleness.after),
        "decision": stale_record(state, staleness, now).to_json() if staleness.became_stale else None,
    }


def _decide(trigger: Trigger, inputs: DecisionInputs) -> DriftDecision:
    rng = generator(*inputs.seed)
    if isinstance(trigger, CombinedTrigger):
        return trigger.check_with_signals(inputs.state, inputs.reference, inputs.window, rng)
    return trigger.check(inputs.state, inputs.reference.counts, inputs.window.counts, rng)
