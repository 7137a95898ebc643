"""What is written down of checks: a line for each, and records of alarms and of stale clusters with all that they rest on.

Key property: from the record of an alarm `core.drift` makes the same decision again, with nothing else at hand: counts of both
sides, losses and shares of the replies, settings, state, and the names that its generator is seeded by. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compass_ray.core.drift import DriftDecision, DriftState, ObservedSample, StalenessCheck, StatTestResult, Trigger
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState
from compass_ray.monitoring.reply_quality import signals_to_record

_TEST_TEXTS = {
    "divergence": "{:.3f} bits from the reference, above {:.3f}",
    "loss": "median loss of replies {:.3f} nats a token above that of when the version was new, beyond {:.3f}",
    "feedback": "share of replies rated bad {:.3f} above that of when the version was new, beyond {:.3f}",
    "canary": "share of canary questions answered wrong {:.3f} above that of when the version was new, beyond {:.3f}",
}
_STALENESS_TEXTS = {
    "noise": "{0.noise:.1%} of the window lies in no cluster, and {1.noise:.1%} of the guide set",
    "distance": "prompts lie {0.distance:.3f} from their centroids, and guide prompts {1.distance:.3f}",
}


@dataclass(frozen=True)
class DecisionInputs:
    """All that a decision rests on but the trigger's settings; ``seed`` is what `core.seeding.generator` takes."""

    seed: tuple[int, str, str, int]
    state: DriftState
    reference: ObservedSample
    window: ObservedSample


def check_record(watch: LanguageMonitorState, decision: DriftDecision, now: float) -> Event:
    """One check, for the checks file."""
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
        "distance": watch.distance(),
        "legs": _test_records(decision),
    }


def drift_record(line: Mapping[str, Any], trigger: Trigger, case: DecisionInputs, decision: DriftDecision) -> Event:
    """An alarm, for the decisions file."""
    return {
        "kind": "drift",
        **{name: line[name] for name in ("language", "time", "prompts")},
        "from": line["version"],
        "reason": _reason(decision),
        **{name: value for name, value in asdict(decision).items() if name not in ("alarm", "exceeded", "state")},
        "legs": _test_records(decision),
        "settings": asdict(trigger),  # type: ignore[call-overload]
        "seed": list(case.seed),
        "before": asdict(case.state),
        "after": asdict(decision.state),
        "reference": _observed_record(case.reference, decision),
        "window": _observed_record(case.window, decision),
    }


def stale_record(watch: LanguageMonitorState, found: StalenessCheck, now: float) -> Event:
    """Clusters that have become stale, for the decisions file."""
    return {
        "kind": "stale",
        "language": watch.language,
        "time": now,
        "prompts": watch.seen,
        "from": watch.version,
        "reason": "; ".join(_STALENESS_TEXTS[name].format(found.window, found.guide) for name in found.beyond),
        **asdict(found),
    }


def summarize_checks(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Check lines as one list for each field that is drawn over time, rounded; short enough to be asked for every few seconds."""
    shown = list(lines)
    rounded = {name: [_rounded(line.get(name)) for line in shown] for name in ("divergence", "threshold", "mean_nll")}
    plain = {name: [line.get(name) for line in shown] for name in ("prompts", "drifted", "version")}
    return {"time": [round(line["time"]) for line in shown], **plain, **rounded}


def _reason(decision: DriftDecision) -> str:
    if not decision.legs:
        significance = "" if decision.p_value is None else f", p = {decision.p_value:.2g}"
        return _TEST_TEXTS["divergence"].format(decision.divergence, decision.threshold) + significance
    beyond = (leg for leg in decision.legs if leg.exceeded)
    return "; ".join(f"{_TEST_TEXTS[leg.name].format(leg.effect, leg.floor)}, p = {leg.p_value:.2g}" for leg in beyond)


def _test_records(decision: DriftDecision) -> list[dict[str, Any]]:
    return [_test_record(leg) for leg in decision.legs]


def _test_record(leg: StatTestResult) -> dict[str, Any]:
    return {**asdict(leg), "exceeded": leg.exceeded}


def _observed_record(observed: ObservedSample, decision: DriftDecision) -> dict[str, Any]:
    """One side; how the replies were only where it was tested."""
    signals = {"signals": signals_to_record(observed.signals)} if len(decision.legs) > 1 else {}
    return {"counts": np.asarray(observed.counts).tolist(), **signals}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
