"""Build the records of drift checks, drift alarms and stale clusters.

From the record of an alarm alone, `core.drift` reproduces the decision. It holds the counts of both samples, the quality
of the replies, the settings, the trigger's state and the seed.
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
    "loss": "median loss of replies rose by {:.3f} nats per token since the version was new, above {:.3f}",
    "feedback": "share of replies rated bad rose by {:.3f} since the version was new, above {:.3f}",
    "canary": "share of canary questions answered wrong rose by {:.3f} since the version was new, above {:.3f}",
}
_STALENESS_TEXTS = {
    "noise": "{0.noise:.1%} of the window is noise, compared with {1.noise:.1%} of the guide set",
    "distance": "mean distance to the centroids is {0.distance:.3f}, compared with {1.distance:.3f} for the guide set",
}


@dataclass(frozen=True)
class DecisionInputs:
    """Inputs of a drift decision without the trigger's settings; ``seed`` holds the arguments of `core.seeds.generator`."""

    seed: tuple[int, str, str, int]
    state: DriftState
    reference: ObservedSample
    window: ObservedSample


def check_record(state: LanguageMonitorState, decision: DriftDecision, now: float) -> CheckRecord:
    """The record of one check, for ``checks.jsonl``."""
    return CheckRecord(
        language=state.language,
        prompts=state.num_prompts,
        divergence=decision.divergence,
        p_value=decision.p_value,
        threshold=decision.threshold,
        drifted=decision.exceeded,
        version=state.version,
        time=now,
        phase=state.phase.value,
        mean_nll=state.mean_nll(),
        noise=decision.noise_window,
        distance=state.distance(),
        tests=_test_records(decision),
    )


def drift_record(check: CheckRecord, trigger: Trigger, inputs: DecisionInputs, decision: DriftDecision) -> DriftRecord:
    """The record of an alarm, for ``decisions.jsonl``."""
    return DriftRecord(
        language=check.language,
        time=check.time,
        prompts=check.prompts,
        from_version=check.version,
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
        tests=_test_records(decision),
        settings=asdict(trigger),  # type: ignore[call-overload]
        seed=inputs.seed,
        before=inputs.state,
        after=decision.state,
        reference=_observed_record(inputs.reference, decision),
        window=_observed_record(inputs.window, decision),
    )


def stale_record(state: LanguageMonitorState, found: StalenessCheck, now: float) -> StaleRecord:
    """The record of clusters that became stale, for ``decisions.jsonl``."""
    return StaleRecord(
        language=state.language,
        time=now,
        prompts=state.num_prompts,
        from_version=state.version,
        reason="; ".join(_STALENESS_TEXTS[name].format(found.window, found.guide) for name in found.beyond),
        guide=found.guide,
        window=found.window,
        bounds=found.bounds,
        before=found.before,
        beyond=found.beyond,
        after=found.after,
    )


def summarize_checks(records: Iterable[CheckRecord]) -> dict[str, list[Any]]:
    """One list per plotted field of the checks, rounded. Short enough to poll every few seconds."""
    checks = list(records)
    return {
        "time": [round(check.time) if isinstance(check.time, float) else 0 for check in checks],
        "prompts": [check.prompts for check in checks],
        "drifted": [check.drifted for check in checks],
        "version": [check.version for check in checks],
        "divergence": [_rounded(check.divergence) for check in checks],
        "threshold": [_rounded(check.threshold) for check in checks],
        "p_value": [_rounded(check.p_value) for check in checks],
        "mean_nll": [_rounded(check.mean_nll) for check in checks],
    }


def _reason(decision: DriftDecision) -> str:
    if not decision.tests:
        significance = "" if decision.p_value is None else f", p = {decision.p_value:.2g}"
        return _TEST_TEXTS["divergence"].format(decision.divergence, decision.threshold) + significance
    exceeded = (test for test in decision.tests if test.exceeded)
    return "; ".join(f"{_TEST_TEXTS[test.name].format(test.effect, test.floor)}, p = {test.p_value:.2g}" for test in exceeded)


def _test_records(decision: DriftDecision) -> tuple[StatTestRecord, ...]:
    return tuple(StatTestRecord(**asdict(test), exceeded=test.exceeded) for test in decision.tests)


def _observed_record(observed: ObservedSample, decision: DriftDecision) -> ObservedRecord:
    """One sample. The quality of replies is recorded only if it was tested."""
    counts = tuple(np.asarray(observed.counts).tolist())
    return ObservedRecord(counts=counts, signals=signals_to_record(observed.signals) if len(decision.tests) > 1 else None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
