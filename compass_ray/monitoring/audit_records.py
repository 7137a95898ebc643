"""What is written down of checks: a line for each, and records of alarms and of stale clusters with all that they rest on.

Key property: from the record of an alarm `core.drift` makes the same decision again, with nothing else at hand: counts of both
sides, losses and shares of the replies, settings, state, and the names that its generator is seeded by. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compass_ray.core.drift import DriftDecision, DriftState, ObservedSample, StalenessCheck, Trigger
from compass_ray.monitoring.language_monitor import LanguageMonitorState
from compass_ray.monitoring.reply_quality import signals_to_record
from compass_ray.records.checks import CheckRecord, StatTestRecord
from compass_ray.records.decisions import DriftRecord, ObservedRecord, StaleRecord

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


def check_record(watch: LanguageMonitorState, decision: DriftDecision, now: float) -> CheckRecord:
    """One check, for the checks file."""
    return CheckRecord(
        language=watch.language,
        prompts=watch.seen,
        divergence=decision.divergence,
        p_value=decision.p_value,
        threshold=decision.threshold,
        drifted=decision.exceeded,
        version=watch.version,
        time=now,
        phase=watch.phase.value,
        mean_nll=watch.mean_nll(),
        noise=decision.noise_window,
        distance=watch.distance(),
        legs=_test_records(decision),
    )


def drift_record(line: CheckRecord, trigger: Trigger, case: DecisionInputs, decision: DriftDecision) -> DriftRecord:
    """An alarm, for the decisions file."""
    return DriftRecord(
        language=line.language,
        time=line.time,
        prompts=line.prompts,
        from_version=line.version,
        reason=_reason(decision),
        trigger=decision.trigger,
        divergence=decision.divergence,
        threshold=decision.threshold,
        p_value=decision.p_value,
        false_alarm_rate=decision.false_alarm_rate,
        noise_reference=decision.noise_reference,
        noise_window=decision.noise_window,
        n_reference=decision.n_reference,
        n_window=decision.n_window,
        legs=_test_records(decision),
        settings=asdict(trigger),  # type: ignore[call-overload]
        seed=case.seed,
        before=case.state,
        after=decision.state,
        reference=_observed_record(case.reference, decision),
        window=_observed_record(case.window, decision),
    )


def stale_record(watch: LanguageMonitorState, found: StalenessCheck, now: float) -> StaleRecord:
    """Clusters that have become stale, for the decisions file."""
    return StaleRecord(
        language=watch.language,
        time=now,
        prompts=watch.seen,
        from_version=watch.version,
        reason="; ".join(_STALENESS_TEXTS[name].format(found.window, found.guide) for name in found.beyond),
        guide=found.guide,
        window=found.window,
        bounds=found.bounds,
        before=found.before,
        beyond=found.beyond,
        after=found.after,
    )


def summarize_checks(lines: Iterable[CheckRecord]) -> dict[str, list[Any]]:
    """Checks as one list for each field that is drawn over time, rounded. Short enough to poll every few seconds."""
    shown = list(lines)
    return {
        "time": [round(float(line.time or 0.0)) for line in shown],
        "prompts": [line.prompts for line in shown],
        "drifted": [line.drifted for line in shown],
        "version": [line.version for line in shown],
        "divergence": [_rounded(line.divergence) for line in shown],
        "threshold": [_rounded(line.threshold) for line in shown],
        "mean_nll": [_rounded(line.mean_nll) for line in shown],
    }


def _reason(decision: DriftDecision) -> str:
    if not decision.legs:
        significance = "" if decision.p_value is None else f", p = {decision.p_value:.2g}"
        return _TEST_TEXTS["divergence"].format(decision.divergence, decision.threshold) + significance
    beyond = (leg for leg in decision.legs if leg.exceeded)
    return "; ".join(f"{_TEST_TEXTS[leg.name].format(leg.effect, leg.floor)}, p = {leg.p_value:.2g}" for leg in beyond)


def _test_records(decision: DriftDecision) -> tuple[StatTestRecord, ...]:
    return tuple(StatTestRecord(**asdict(leg), exceeded=leg.exceeded) for leg in decision.legs)


def _observed_record(observed: ObservedSample, decision: DriftDecision) -> ObservedRecord:
    """One side. The quality of replies is recorded only where it was tested."""
    counts = tuple(np.asarray(observed.counts).tolist())
    return ObservedRecord(counts=counts, signals=signals_to_record(observed.signals) if len(decision.legs) > 1 else None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
