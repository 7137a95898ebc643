"""What follows from a language's situation: an update, the end of a trial, a roll-back, a word to the monitor, or nothing.

Key property: a pure function of what is found and what is remembered, so a turn that was cut short is made again and comes to the
same. Of a language there is one update at a time; a window whose gate has spoken gets no second one; what was taken
off traffic is put on none again; a pinned language is left alone; and outside the hours of ``update.schedule_utc`` no update begins,
while one that has begun, and all that follows from it, goes on. It knows no clock, no file and no Ray. Beyond the paper.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from compass_ray.config import RunConfig
from compass_ray.continual.keeping.actions import Action, CanaryRound, ControllerDecision, Promote, RollBack, StopCanary
from compass_ray.continual.keeping.comparing import compare_versions, describe_tests, is_worse
from compass_ray.continual.keeping.offers import handle_ready_window
from compass_ray.continual.keeping.situation import CanaryEvaluation, ControllerState, LanguageState
from compass_ray.core.drift.decision import StatTestResult
from compass_ray.core.drift.performance import QualitySignals

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
