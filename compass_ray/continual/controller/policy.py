"""Decide the next action of the controller for one language: update, stop a canary, promote, roll back, or nothing.

Key property: `decide` is a pure function of the observed state and the persisted state, so an interrupted cycle is repeated
with the same result. A language has one update at a time. A window that the gate rejected is not used again. A version that
was taken out of service is not served again. A pinned language is never changed. Updates start only within
``update.schedule_utc``; an update that has started continues. No clock, no file, no Ray. Not part of the paper.
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


def compare_versions(
    before: QualitySignals, now: QualitySignals, drift: DriftConfig, *, first: Sequence[float] = ()
) -> tuple[StatTestResult, ...]:
    """The legs on which ``now`` can be compared with the version before, and with its own ``first`` losses where given.

    >>> from compass_ray.config import DriftConfig
    >>> sure = QualitySignals(nll=np.full(50, 0.1), bad=5, rated=60)
    >>> unsure = QualitySignals(nll=np.full(50, 2.0), bad=6, rated=60)
    >>> [(leg.name, leg.exceeded, leg.level) for leg in compare_versions(sure, unsure, DriftConfig())]
    [('feedback', False, 0.01)]
    >>> [(leg.name, leg.exceeded, leg.level) for leg in compare_versions(sure, unsure, DriftConfig(), first=[1.0] * 50)]
    [('loss', True, 0.005), ('feedback', False, 0.005)]
    """
    floors = MinEffects(loss=drift.min_loss_increase, bad=drift.min_bad_feedback_increase, canary=drift.min_canary_accuracy_drop)
    reference = replace(before, nll=np.asarray(first, dtype=np.float64))
    legs = run_quality_tests(reference, now, drift.false_alarm_rate, floors)
    return tuple(replace(leg, level=drift.false_alarm_rate / len(legs)) for leg in legs)


def is_worse(legs: Sequence[StatTestResult]) -> bool:
    """Whether any leg is beyond its bounds."""
    return any(leg.exceeded for leg in legs)


def describe_tests(legs: Sequence[StatTestResult]) -> str:
    """Legs in words.

    >>> describe_tests([StatTestResult("feedback", 0.0004, 0.005, 0.3, 0.1, 60, 50)])
    'share of replies rated bad +0.300 (p = 0.0004)'
    """
    return ", ".join(f"{_TEST_LABELS[leg.name]} {leg.effect:+.3f} (p = {leg.p_value:.4f})" for leg in legs)


_TEST_LABELS = {
    "loss": "median loss since its first window",
    "feedback": "share of replies rated bad",
    "canary": "share of questions answered wrong",
}


_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 5.0, 3600.0
"""Seconds before a failed attempt is made again, doubled after each in a row."""
MAX_FAILURES = 12
"""Attempts in a row, over some two hours and a half, after which a window is let go: some can never come to a verdict."""


def handle_ready_window(seen: LanguageState, memory: ControllerState, config: RunConfig, moment: datetime) -> Action | None:
    """What becomes of the window that the monitor offers, if anything now."""
    if seen.ready_window is None:
        return None
    if seen.ready_window.window is None:
        return DiscardWindow(seen.ready_window.problem)
    if config.update.strategy == "static":
        return DiscardWindow("nothing is trained, as update.strategy is static")
    judged = next((each for each in seen.gate_verdicts if each.window == seen.ready_window.window), None)
    if judged is None:
        return _start_update(seen, memory, seen.ready_window.window, config, moment)
    if judged.version == seen.live:
        return ResetReference(judged.version)
    if judged.version == seen.canary:
        return None
    if judged.version not in seen.recorded and judged.version not in seen.dropped:  # killed before it could say so
        return _unless_backing_off(StartUpdate(judged.window), seen, moment)
    if not judged.accepted:
        return DiscardWindow(f"the gate refused {judged.version}")
    if judged.version in seen.dropped or judged.parent != seen.live or config.update.promotion == "manual":
        return DiscardWindow(f"{judged.version} is not served")
    return _unless_backing_off(StartUpdate(judged.window), seen, moment)  # killed before it could serve what was accepted


def _start_update(
    seen: LanguageState, memory: ControllerState, window: str, config: RunConfig, moment: datetime
) -> Action | None:
    if seen.unfinished != window:
        hours = DailyTimeWindow.parse(config.update.schedule_utc) if config.update.schedule_utc else None
        closed = hours is not None and hours.next_opening(moment) != moment
        if closed or memory.trial or seen.canary:  # what it would be updated from may not stay
            return None
    return _unless_backing_off(StartUpdate(window), seen, moment)


def _unless_backing_off(update: StartUpdate, seen: LanguageState, moment: datetime) -> StartUpdate | DiscardWindow | None:
    failed = seen.retry
    if failed.times >= MAX_FAILURES:
        return DiscardWindow(f"{failed.times} attempts in a row came to no verdict; the decisions 'update failed' say why")
    pause = min(_FIRST_BACKOFF_S * 2 ** (failed.times - 1), _MAX_BACKOFF_S) if failed.times else 0.0
    return update if moment.timestamp() >= failed.last + pause else None


CONSECUTIVE_WORSE_CHECKS = 2
"""Looks in a row at which a version must be worse before it is taken off traffic."""
WINDOWS_TO_GRADUATE = 2
"""Windows of prompts after which a version that was never taken back is settled: its first, and one to compare with that."""


def decide(seen: LanguageState, memory: ControllerState, config: RunConfig, moment: datetime) -> ControllerDecision:
    """What follows at ``moment``, an aware time; to be remembered whatever becomes of the action."""
    if seen.live is None or seen.pinned:
        return ControllerDecision(memory)
    if ended := _stale_canary(seen, memory):
        return ControllerDecision(memory) if seen.updating else ControllerDecision(replace(memory, trial=None), ended)
    memory = replace(memory, trial=_current_evaluation(seen, memory, config))
    action: Action | None = None
    if memory.trial and seen.prompts >= memory.trial.looked + config.drift.check_every:
        trial, legs = _check_version(seen, memory.trial, config)
        action = _conclude(seen, trial, legs, config)
        memory = _mark_graduated(seen, replace(memory, trial=trial), config)
    asked = _next_round(seen, memory, config)
    if asked:
        memory = replace(memory, questioned=seen.prompts)
    if seen.updating:  # its parent stays until it has ended
        return ControllerDecision(memory, None, asked)
    return ControllerDecision(memory, action or handle_ready_window(seen, memory, config, moment), asked)


def record_round(memory: ControllerState, asked: CanaryRound) -> ControllerState:
    """What to remember once a round of questions was answered; one that was not is asked again at its next time."""
    counts = {**memory.asked, **{version: memory.asked.get(version, 0) + asked.count for version in asked.versions}}
    return replace(memory, position=asked.position + asked.count, asked=counts)


def _current_evaluation(seen: LanguageState, memory: ControllerState, config: RunConfig) -> CanaryEvaluation | None:
    """The trial that goes on, or the one that begins now, or none."""
    found = _version_to_evaluate(seen, memory, config)
    if found is None:
        return None
    version, live = found
    going = memory.trial
    if going and (going.version, going.live) == found:
        return going
    return CanaryEvaluation(version, live, seen.prompts, seen.prompts)


def _version_to_evaluate(seen: LanguageState, memory: ControllerState, config: RunConfig) -> tuple[str, bool] | None:
    """The version on trial and whether it is live: a canary, else the live version, where an update made it."""
    if _made_by_update(seen, seen.canary, seen.live) and config.update.promotion == "canary":
        return str(seen.canary), False
    if _made_by_update(seen, seen.live, seen.previous) and seen.live not in memory.settled:
        return str(seen.live), True
    return None


def _made_by_update(seen: LanguageState, version: str | None, parent: str | None) -> bool:
    """Whether an update from ``parent`` made a version, which its gate accepted and nobody took off traffic."""
    judged = seen.verdict_for(version)
    return judged is not None and judged.accepted and judged.parent == parent and version not in seen.dropped


def _stale_canary(seen: LanguageState, memory: ControllerState) -> StopCanary | None:
    """The end of a trial whose other side is live no more, as somebody changed that meanwhile; nothing else would end it."""
    going, judged = memory.trial, seen.verdict_for(seen.canary)
    if going is None or going.live or judged is None or going.version != seen.canary or judged.parent == seen.live:
        return None
    return StopCanary(going.version, f"it was compared with {judged.parent}, and {seen.live} is live since")


def _check_version(
    seen: LanguageState, trial: CanaryEvaluation, config: RunConfig
) -> tuple[CanaryEvaluation, tuple[StatTestResult, ...]]:
    now = seen.signals.get(trial.version, QualitySignals())
    beside = seen.signals.get(str(seen.previous if trial.live else seen.live), QualitySignals())
    first = () if seen.drifted else trial.first
    legs = compare_versions(beside, now, config.drift, first=first)
    if trial.live and not trial.first and seen.prompts - trial.begun >= config.drift.window:
        trial = replace(trial, first=tuple(float(loss) for loss in now.nll))
    return replace(trial, looked=seen.prompts, worse=trial.worse + 1 if is_worse(legs) else 0), legs


def _conclude(seen: LanguageState, trial: CanaryEvaluation, legs: tuple[StatTestResult, ...], config: RunConfig) -> Action | None:
    """The end of a trial at a look, if this is it."""
    bad = tuple(leg for leg in legs if leg.exceeded)
    if trial.live:
        if trial.worse < CONSECUTIVE_WORSE_CHECKS:
            return None
        return RollBack(trial.version, str(seen.previous), f"worse than {seen.previous}: {describe_tests(bad)}", legs)
    enough = len(seen.signals.get(trial.version, QualitySignals()).nll) >= min(config.update.canary_replies, config.drift.window)
    if trial.worse >= CONSECUTIVE_WORSE_CHECKS or (enough and trial.worse):
        return StopCanary(trial.version, f"worse than {seen.live}: {describe_tests(bad)}", legs)
    if not enough:
        return None
    compared = describe_tests(legs) or "no ratings and no answers to compare"
    return Promote(trial.version, f"as a canary no worse than {seen.live}: {compared}", legs)


def _mark_graduated(seen: LanguageState, memory: ControllerState, config: RunConfig) -> ControllerState:
    """The trial of a live version ends after its windows, unless its last look was a bad one."""
    trial = memory.trial
    over = trial and trial.live and seen.prompts - trial.begun >= WINDOWS_TO_GRADUATE * config.drift.window
    if trial is None or not over or trial.worse:
        return memory
    return replace(memory, trial=None, settled=(*memory.settled, trial.version))


def _next_round(seen: LanguageState, memory: ControllerState, config: RunConfig) -> CanaryRound | None:
    """Questions for the live version and the one it is compared with, more often while it is.

    No version is asked a question twice: it would give the same answer, which is no more evidence than once.
    """
    wanted = min(config.update.canary_questions, seen.num_canary_items)
    pause = config.drift.check_every if memory.trial else config.drift.window
    if not wanted or seen.prompts < memory.questioned + pause:
        return None
    beside = seen.previous if memory.trial and memory.trial.live else seen.canary
    versions = tuple(v for v in (seen.live, beside) if v and memory.asked.get(v, 0) + wanted <= seen.num_canary_items)
    return CanaryRound(versions, memory.position, wanted) if versions else None
