"""What is written down of checks: a line for each, and records of alarms and of stale clusters with all that they rest on.

Key property: from the record of an alarm `core.drift` makes the same decision again, with nothing else at hand: counts of both
sides, losses and shares of the replies, settings, state, and the names that its generator is seeded by. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compass_ray.core.drift import Aged, Decision, DriftState, Leg, Observed, Trigger
from compass_ray.serving.monitoring.replies import as_record
from compass_ray.serving.monitoring.windows import Event, Watch

_LEGS = {
    "divergence": "{:.3f} bits from the reference, above {:.3f}",
    "loss": "median loss of replies {:.3f} nats a token above that of when the version was new, beyond {:.3f}",
    "feedback": "share of replies rated bad {:.3f} above that of when the version was new, beyond {:.3f}",
    "canary": "share of canary questions answered wrong {:.3f} above that of when the version was new, beyond {:.3f}",
}
_AGED = {
    "noise": "{0.noise:.1%} of the window lies in no cluster, and {1.noise:.1%} of the guide set",
    "distance": "prompts lie {0.distance:.3f} from their centroids, and guide prompts {1.distance:.3f}",
}


@dataclass(frozen=True)
class Case:
    """All that a decision rests on but the trigger's settings; ``seed`` is what `core.seeding.generator` takes."""

    seed: tuple[int, str, str, int]
    state: DriftState
    reference: Observed
    window: Observed


def check_line(watch: Watch, decision: Decision, now: float) -> Event:
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
        "legs": _legs(decision),
    }


def drift_line(line: Mapping[str, Any], trigger: Trigger, case: Case, decision: Decision) -> Event:
    """An alarm, for the decisions file."""
    return {
        "kind": "drift",
        **{name: line[name] for name in ("language", "time", "prompts")},
        "from": line["version"],
        "reason": _reason(decision),
        **{name: value for name, value in asdict(decision).items() if name not in ("alarm", "exceeded", "state")},
        "legs": _legs(decision),
        "settings": asdict(trigger),  # type: ignore[call-overload]
        "seed": list(case.seed),
        "before": asdict(case.state),
        "after": asdict(decision.state),
        "reference": _side(case.reference, decision),
        "window": _side(case.window, decision),
    }


def stale_line(watch: Watch, found: Aged, now: float) -> Event:
    """Clusters that have become stale, for the decisions file."""
    return {
        "kind": "stale",
        "language": watch.language,
        "time": now,
        "prompts": watch.seen,
        "from": watch.version,
        "reason": "; ".join(_AGED[name].format(found.window, found.guide) for name in found.beyond),
        **asdict(found),
    }


def summary(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Check lines as one list for each field that is drawn over time, rounded; short enough to be asked for every few seconds."""
    shown = list(lines)
    rounded = {name: [_rounded(line.get(name)) for line in shown] for name in ("divergence", "threshold", "mean_nll")}
    plain = {name: [line.get(name) for line in shown] for name in ("prompts", "drifted", "version")}
    return {"time": [round(line["time"]) for line in shown], **plain, **rounded}


def _reason(decision: Decision) -> str:
    if not decision.legs:
        significance = "" if decision.p_value is None else f", p = {decision.p_value:.2g}"
        return _LEGS["divergence"].format(decision.divergence, decision.threshold) + significance
    beyond = (leg for leg in decision.legs if leg.exceeded)
    return "; ".join(f"{_LEGS[leg.name].format(leg.effect, leg.floor)}, p = {leg.p_value:.2g}" for leg in beyond)


def _legs(decision: Decision) -> list[dict[str, Any]]:
    return [_leg(leg) for leg in decision.legs]


def _leg(leg: Leg) -> dict[str, Any]:
    return {**asdict(leg), "exceeded": leg.exceeded}


def _side(observed: Observed, decision: Decision) -> dict[str, Any]:
    """One side; how the replies were only where it was tested."""
    signals = {"signals": as_record(observed.signals)} if len(decision.legs) > 1 else {}
    return {"counts": np.asarray(observed.counts).tolist(), **signals}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
