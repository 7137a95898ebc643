"""One drift check of a watch: the trigger of a configuration, a version's reference, the records of a check.

Key property: the generator is seeded by language and prompt count, so a check that is made again decides
the same. COMPASS, section 3.3.2. The triggers themselves are `core.drift`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from compass_ray.config import DriftConfig
from compass_ray.core.drift import CalibratedTrigger, Decision, PaperTrigger, Trigger, printed_reference
from compass_ray.core.seeding import generator
from compass_ray.serving.monitoring.windows import Event, Phase, Reference, Watch
from compass_ray.watched_clusters import FITTED


def build_trigger(drift: DriftConfig) -> Trigger:
    """The trigger of a configuration; its cool-down, given in prompts, is counted in checks."""
    checks = math.ceil(drift.cooldown / drift.check_every)
    if drift.trigger == "paper":
        return PaperTrigger(threshold=drift.threshold, cooldown=checks)
    return CalibratedTrigger(
        false_alarm_rate=drift.false_alarm_rate,
        floor=drift.floor,
        persistence=drift.persistence,
        cooldown=checks,
        resamples=drift.permutations,
    )


def reference_of(drift: DriftConfig, version: str, found: Mapping[str, Any], place: str = FITTED) -> Reference | None:
    """The reference of an adapter version from its record: guide counts, or the printed one for the paper's trigger."""
    counts = np.asarray(found["guide_counts"], dtype=np.int64)
    if drift.trigger == "paper":
        counts = printed_reference(counts, found["selected_counts"])
    return Reference(version, counts, place) if counts.sum() > 0 else None


def check_event(watch: Watch, reference: Reference, trigger: Trigger, seed: int, now: float) -> Event:
    """Compare the window with the reference; the event carries the lines for the checks and decisions files.

    An alarm counts only while the language is watched, not while its window for an update is being collected.
    """
    window = watch.counts(len(reference.counts) - 1)
    rng = generator(seed, "drift", watch.language, watch.seen)
    decision = trigger.check(watch.trigger, reference.counts, window, rng)
    alarm = decision.alarm and watch.phase is Phase.WATCHING
    line = _check_line(watch, decision, now)
    return {
        "event": "check",
        "language": watch.language,
        "trigger": asdict(decision.state),
        "alarm": alarm,
        "line": line,
        "decision": _decision_line(line, decision) if alarm else None,
    }


def summary(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Check lines as one list for each field that is drawn over time, rounded; short enough to be asked for every few seconds."""
    shown = list(lines)
    rounded = {name: [_rounded(line.get(name)) for line in shown] for name in ("divergence", "threshold", "mean_nll")}
    plain = {name: [line.get(name) for line in shown] for name in ("prompts", "drifted", "version")}
    return {"time": [round(line["time"]) for line in shown], **plain, **rounded}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _check_line(watch: Watch, decision: Decision, now: float) -> Event:
    return {
        "language": watch.language,
        "prompts": watch.seen,
        "divergence": decision.divergence,
        "p_value": decision.p_value,
        "threshold": decision.threshold,
        "drifted": decision.exceeded,
        "version": watch.version,
        "time": now,
        "phase": watch.phase.value,
        "mean_nll": watch.mean_nll(),
        "noise": decision.noise_window,
    }


def _decision_line(line: Mapping[str, Any], decision: Decision) -> Event:
    significance = "" if decision.p_value is None else f", p = {decision.p_value:.4f}"
    distance = f"{decision.divergence:.3f} bits from the reference, above {decision.threshold:.3f}"
    return {
        "kind": "drift",
        "language": line["language"],
        "time": line["time"],
        "prompts": line["prompts"],
        "from": line["version"],
        "reason": distance + significance,
        "trigger": decision.trigger,
        "divergence": decision.divergence,
        "p_value": decision.p_value,
        "threshold": decision.threshold,
        "false_alarm_rate": decision.false_alarm_rate,
        "noise_reference": decision.noise_reference,
        "noise_window": decision.noise_window,
        "n_reference": decision.n_reference,
        "n_window": decision.n_window,
    }
