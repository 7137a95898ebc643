"""One drift check of a watch: the trigger of a configuration, a version's reference, and what a check comes to.

Key property: the generator is seeded by language and prompt count, so a check that is made again decides
the same. COMPASS, section 3.3.2. The triggers themselves are `core.drift`, the lines that are kept `records`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from compass_ray.config import DriftConfig
from compass_ray.core.distribution import noise_share
from compass_ray.core.drift import (
    Bounds,
    CalibratedTrigger,
    Decision,
    Fit,
    MultiTrigger,
    Observed,
    PaperTrigger,
    Signals,
    Staleness,
    Trigger,
    check_fit,
    printed_reference,
)
from compass_ray.core.drift.performance import Floors
from compass_ray.core.seeding import generator
from compass_ray.serving.monitoring.records import Case, check_line, drift_line, stale_line
from compass_ray.serving.monitoring.replies import Ratings, of_record
from compass_ray.serving.monitoring.windows import Event, Phase, Reference, Watch
from compass_ray.watched_clusters import FITTED


def build_trigger(drift: DriftConfig) -> Trigger:
    """The trigger of a configuration; its cool-down, given in prompts, is counted in checks."""
    checks = math.ceil(drift.cooldown / drift.check_every)
    if drift.trigger == "paper":
        return PaperTrigger(threshold=drift.threshold, cooldown=checks)
    rate, floor, rest = drift.false_alarm_rate, drift.floor, (drift.persistence, checks, drift.permutations)
    if drift.trigger == "calibrated":
        return CalibratedTrigger(rate, floor, *rest)
    return MultiTrigger(rate, floor, Floors(drift.worse_loss, drift.worse_feedback, drift.worse_canary), *rest)


def build_bounds(drift: DriftConfig) -> Bounds:
    """The bounds of a configuration beyond which clusters are stale."""
    return Bounds(drift.stale_noise, drift.stale_distance, drift.persistence)


def reference_of(drift: DriftConfig, version: str, found: Mapping[str, Any], place: str = FITTED) -> Reference | None:
    """The reference of an adapter version from its record: guide counts, or the printed one for the paper's trigger."""
    guide = np.asarray(found["guide_counts"], dtype=np.int64)
    if not guide.sum():
        return None
    counts = printed_reference(guide, found["selected_counts"]) if drift.trigger == "paper" else guide
    fit = Fit(found.get("guide_noise", noise_share(guide)), found.get("guide_distance"))  # older runs have neither
    return Reference(version, counts, fit, place)


def check_event(watch: Watch, reference: Reference, trigger: Trigger, ratings: Ratings, seed: int, now: float) -> Event:
    """Compare the window with the reference; the event carries the lines for the checks and decisions files.

    An alarm counts only while the language is watched, not while its window for an update is being collected.
    """
    case = Case(
        seed=(seed, "drift", watch.language, watch.seen),
        state=watch.trigger,
        reference=Observed(reference.counts, of_record(watch.baseline) if watch.baseline else Signals()),
        window=Observed(watch.counts(len(reference.counts) - 1), watch.signals(ratings)),
    )
    decision = _decide(trigger, case)
    alarm = decision.alarm and watch.phase is Phase.WATCHING
    line = check_line(watch, decision, now)
    return {
        "event": "check",
        "language": watch.language,
        "trigger": asdict(decision.state),
        "alarm": alarm,
        "line": line,
        "decision": drift_line(line, trigger, case, decision) if alarm else None,
    }


def staleness_event(watch: Watch, guide: Fit, bounds: Bounds, clusters: str | None, now: float) -> Event:
    """Compare how the window fits the clusters, by their fingerprint, with how the guide set does.

    The event carries a line for the decisions file where they have become stale.
    """
    before = watch.staleness if watch.clusters == clusters else Staleness()
    found = check_fit(before, guide, Fit(watch.noise() or 0.0, watch.distance()), bounds)
    return {
        "event": "staleness",
        "language": watch.language,
        "clusters": clusters,
        "state": asdict(found.after),
        "decision": stale_line(watch, found, now) if found.begun else None,
    }


def _decide(trigger: Trigger, case: Case) -> Decision:
    rng = generator(*case.seed)
    if isinstance(trigger, MultiTrigger):
        return trigger.judge(case.state, case.reference, case.window, rng)
    return trigger.check(case.state, case.reference.counts, case.window.counts, rng)
