"""Decide the next action of the controller for one language: update, stop a canary, promote, roll back, or nothing.

`decide` is a pure function of the observed state and the persisted state, so an interrupted cycle is repeated with the same
result. A language has one update at a time. A window that the gate rejected is not used again. A version that was taken out
of service is not served again. A pinned language is never changed. Updates start only within ``update.schedule_utc``; an
update that has started continues. No update starts after ``update.max_per_day`` decisions of the gate on a language in 24
hours. No clock, no file, no Ray. Not part of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from compass_ray.config import DailyTimeWindow, DriftConfig, RunConfig
from compass_ray.continual.controller.actions import (
    Action,
    CanaryRound,
    ControllerDecision,
    DiscardWindow,
    Promote,
    ResetReference,
    RollBack,
    StartUpdate,
    StopCanary,
)
from compass_ray.continual.controller.state import CanaryEvaluation, ControllerState, LanguageState
from compass_ray.core.drift.quality_tests import MinEffects, QualitySignals, run_quality_tests
from compass_ray.core.drift.trigger import StatTestResult

CONSECUTIVE_WORSE_CHECKS = 2
"""Consecutive checks at which a version must be worse before it is taken out of service."""
WINDOWS_TO_GRADUATE = 2
"""Windows of prompts after which a live version can no longer be rolled back: its first window and one compared with it."""
MAX_FAILURES = 12
"""Consecutive failed attempts, over about two and a half hours, after which a window is discarded."""
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 5.0, 3600.0
"""Delay before a failed attempt is retried; it doubles after each consecutive failure."""
_DAY_S = 86_400.0
_TEST_LABELS = {
    "loss": "median loss since its first window",
    "feedback": "share of replies rated bad",
    "canary": "share of questions answered wrong",
}


def decide(observed: LanguageState, state: ControllerState, config: RunConfig, moment: datetime) -> ControllerDecision:
    """The decision at ``moment`` (timezone-aware). Its state is persisted even if the action fails."""
    if observed.live is None or observed.pinned:
        return ControllerDecision(state)
    if stop := _stale_canary(observed, state):
        return ControllerDecision(state) if observed.updating else ControllerDecision(replace(state, trial=None), stop)
    state = replace(state, trial=_current_evaluation(observed, state, config))
    action: Action | None = None
    if state.trial and observed.prompts >= state.trial.looked + config.drift.check_every:
        evaluation, tests = _check_version(observed, state.trial, config)
        action = _conclude(observed, evaluation, tests, config)
        state = _mark_graduated(observed, replace(state, trial=evaluation), config)
    canary_round = _next_round(observed, state, config)
    if canary_round:
        state = replace(state, questioned=observed.prompts)
    if observed.updating:  # the parent version must stay live until the update ends
        return ControllerDecision(state, None, canary_round)
    return ControllerDecision(state, action or handle_ready_window(observed, state, config, moment), canary_round)


def record_round(state: ControllerState, answered: CanaryRound) -> ControllerState:
    """The state after a round of canary questions. A version that did not answer is asked again in a later round."""
    counts = {**state.asked, **{version: state.asked.get(version, 0) + answered.count for version in answered.versions}}
    return replace(state, position=answered.position + answered.count, asked=counts)


def compare_versions(
    previous: QualitySignals, current: QualitySignals, drift: DriftConfig, *, first_losses: Sequence[float] = ()
) -> tuple[StatTestResult, ...]:
    """Test ``current`` against the previous version, and against its own ``first_losses`` if there are any.

    Only tests with enough data are returned.

    >>> from compass_ray.config import DriftConfig
    >>> sure, drift = QualitySignals(nll=np.full(50, 0.1), bad=5, rated=60), DriftConfig()
    >>> unsure = QualitySignals(nll=np.full(50, 2.0), bad=6, rated=60)
    >>> [(test.name, test.exceeded, test.level) for test in compare_versions(sure, unsure, drift)]
    [('feedback', False, 0.01)]
    >>> [(test.name, test.exceeded, test.level) for test in compare_versions(sure, unsure, drift, first_losses=[1.0] * 50)]
    [('loss', True, 0.005), ('feedback', False, 0.005)]
    """
    floors = MinEffects(loss=drift.min_loss_increase, bad=drift.min_bad_feedback_increase, canary=drift.min_canary_accuracy_drop)
    reference = replace(previous, nll=np.asarray(first_losses, dtype=np.float64))
    tests = run_quality_tests(reference, current, drift.false_alarm_rate, floors)
    return tuple(replace(test, level=drift.false_alarm_rate / len(tests)) for test in tests)


def describe_tests(tests: Sequence[StatTestResult]) -> str:
    """Effects and p-values of tests as text.

    >>> describe_tests([StatTestResult("feedback", 0.0004, 0.005, 0.3, 0.1, 60, 50)])
    'share of replies rated bad +0.300 (p = 0.0004)'
    """
    return ", ".join(f"{_TEST_LABELS[test.name]} {test.effect:+.3f} (p = {test.p_value:.4f})" for test in tests)


def handle_ready_window(observed: LanguageState, state: ControllerState, config: RunConfig, moment: datetime) -> Action | None:
    """The action for the window that is ready for an update, None to wait."""
    ready = observed.ready_window
    if ready is None:
        return None
    if ready.window is None:
        return DiscardWindow(ready.problem)
    if config.update.strategy == "static":
        return DiscardWindow("nothing is trained: update.strategy is static")
    verdict = next((each for each in observed.gate_verdicts if each.window == ready.window), None)
    if verdict is None:
        return _start_update(observed, state, ready.window, config, moment)
    if verdict.version == observed.live:
        return ResetReference(verdict.version)
    if verdict.version == observed.canary:
        return None
    if verdict.version not in observed.recorded and verdict.version not in observed.dropped:  # killed before it was recorded
        return _unless_backing_off(StartUpdate(verdict.window), observed)
    if not verdict.accepted:
        return DiscardWindow(f"the gate rejected {verdict.version}")
    if verdict.version in observed.dropped or verdict.parent != observed.live or config.update.promotion == "manual":
        return DiscardWindow(f"{verdict.version} was accepted but is not served")
    return _unless_backing_off(StartUpdate(verdict.window), observed)  # accepted, but killed before promotion


def _start_update(
    observed: LanguageState, state: ControllerState, window: str, config: RunConfig, moment: datetime
) -> Action | None:
    if observed.unfinished != window:
        schedule = DailyTimeWindow.parse(config.update.schedule_utc) if config.update.schedule_utc else None
        closed = schedule is not None and schedule.next_opening(moment) != moment
        if closed or _is_day_full(observed, config, moment):
            return None
        if state.trial or observed.canary:  # a version under evaluation may be replaced, so it is no parent
            return None
    return _unless_backing_off(StartUpdate(window), observed)


def _is_day_full(observed: LanguageState, config: RunConfig, moment: datetime) -> bool:
    """Whether the language has reached ``update.max_per_day``. A time far ahead, of a wrong clock, does not count."""
    recent = sum(abs(moment.timestamp() - time) < _DAY_S for time in observed.update_times)
    return config.update.max_per_day is not None and recent >= config.update.max_per_day


def _unless_backing_off(update: StartUpdate, observed: LanguageState) -> StartUpdate | DiscardWindow | None:
    retry = observed.retry
    if retry.times >= MAX_FAILURES:
        return DiscardWindow(f"{retry.times} consecutive attempts failed; see the 'update failed' decisions for the errors")
    delay = min(_FIRST_BACKOFF_S * 2 ** (retry.times - 1), _MAX_BACKOFF_S) if retry.times else 0.0
    return update if retry.waited >= delay else None


def _current_evaluation(observed: LanguageState, state: ControllerState, config: RunConfig) -> CanaryEvaluation | None:
    """The evaluation that continues or starts now, None if no version is under evaluation."""
    target = _version_to_evaluate(observed, state, config)
    if target is None:
        return None
    current = state.trial
    if current and (current.version, current.live) == target:
        return current
    version, live = target
    return CanaryEvaluation(version, live, observed.prompts, observed.prompts)


def _version_to_evaluate(observed: LanguageState, state: ControllerState, config: RunConfig) -> tuple[str, bool] | None:
    """The version under evaluation and whether it is live: the canary, otherwise the live version if an update made it."""
    if _made_by_update(observed, observed.canary, observed.live) and config.update.promotion == "canary":
        return str(observed.canary), False
    if _made_by_update(observed, observed.live, observed.previous) and observed.live not in state.settled:
        return str(observed.live), True
    return None


def _made_by_update(observed: LanguageState, version: str | None, parent: str | None) -> bool:
    """Whether an update from ``parent`` made a version that the gate accepted and that was never taken out of service."""
    verdict = observed.verdict_for(version)
    return verdict is not None and verdict.accepted and verdict.parent == parent and version not in observed.dropped


def _stale_canary(observed: LanguageState, state: ControllerState) -> StopCanary | None:
    """Stop the canary if the version that it is compared with is no longer live, because somebody changed it."""
    current, verdict = state.trial, observed.verdict_for(observed.canary)
    if current is None or current.live or verdict is None or current.version != observed.canary:
        return None
    if verdict.parent == observed.live:
        return None
    return StopCanary(current.version, f"it was compared with {verdict.parent}, but {observed.live} is live now")


def _check_version(
    observed: LanguageState, evaluation: CanaryEvaluation, config: RunConfig
) -> tuple[CanaryEvaluation, tuple[StatTestResult, ...]]:
    current = observed.signals.get(evaluation.version, QualitySignals())
    other = observed.signals.get(str(observed.previous if evaluation.live else observed.live), QualitySignals())
    tests = compare_versions(other, current, config.drift, first_losses=() if observed.drifted else evaluation.first)
    if evaluation.live and not evaluation.first and observed.prompts - evaluation.begun >= config.drift.window:
        evaluation = replace(evaluation, first=tuple(float(loss) for loss in current.nll))
    worse = evaluation.worse + 1 if any(test.exceeded for test in tests) else 0
    return replace(evaluation, looked=observed.prompts, worse=worse), tests


def _conclude(
    observed: LanguageState, evaluation: CanaryEvaluation, tests: tuple[StatTestResult, ...], config: RunConfig
) -> Action | None:
    """The action that ends an evaluation at this check, None if it continues."""
    exceeded = tuple(test for test in tests if test.exceeded)
    if evaluation.live:
        if evaluation.worse < CONSECUTIVE_WORSE_CHECKS:
            return None
        reason = f"worse than {observed.previous}: {describe_tests(exceeded)}"
        return RollBack(evaluation.version, str(observed.previous), reason, tests)
    replies = len(observed.signals.get(evaluation.version, QualitySignals()).nll)
    enough = replies >= min(config.update.canary_replies, config.drift.window)
    if evaluation.worse >= CONSECUTIVE_WORSE_CHECKS or (enough and evaluation.worse):
        return StopCanary(evaluation.version, f"worse than {observed.live}: {describe_tests(exceeded)}", tests)
    if not enough:
        return None
    compared = describe_tests(tests) or "no ratings and no canary answers to compare"
    return Promote(evaluation.version, f"as a canary no worse than {observed.live}: {compared}", tests)


def _mark_graduated(observed: LanguageState, state: ControllerState, config: RunConfig) -> ControllerState:
    """End the evaluation of a live version after `WINDOWS_TO_GRADUATE` windows, unless it was worse at the last check."""
    current = state.trial
    over = current and current.live and observed.prompts - current.begun >= WINDOWS_TO_GRADUATE * config.drift.window
    if current is None or not over or current.worse:
        return state
    return replace(state, trial=None, settled=(*state.settled, current.version))


def _next_round(observed: LanguageState, state: ControllerState, config: RunConfig) -> CanaryRound | None:
    """Canary questions for the live version and the version it is compared with; more often during an evaluation.

    No version gets the same question twice: it would give the same answer, which is no additional evidence.
    """
    count = min(config.update.canary_questions, observed.num_canary_items)
    interval = config.drift.check_every if state.trial else config.drift.window
    if not count or observed.prompts < state.questioned + interval:
        return None
    other = observed.previous if state.trial and state.trial.live else observed.canary
    versions = tuple(v for v in (observed.live, other) if v and state.asked.get(v, 0) + count <= observed.num_canary_items)
    return CanaryRound(versions, state.position, count) if versions else None
