"""What follows from a language's situation: an update, the end of a trial, a roll-back, a word to the monitor, or nothing.

Key property: a pure function of what is found and what is remembered, so a turn that was cut short is made again and comes to the
same. Of a language there is one update at a time; a window whose gate has spoken gets no second one; what was taken
off traffic is put on none again; a pinned language is left alone; and outside the hours of ``update.hours`` no update begins,
while one that has begun, and all that follows from it, goes on. It knows no clock, no file and no Ray. Beyond the paper.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from compass_ray.config import RunConfig
from compass_ray.continual.keeping.actions import Action, EndCanary, Promote, RollBack, Round, Turn
from compass_ray.continual.keeping.comparing import compare, told, worse
from compass_ray.continual.keeping.offers import answer
from compass_ray.continual.keeping.situation import Memory, Situation, Trial
from compass_ray.core.drift.decision import Leg
from compass_ray.core.drift.performance import Signals

PERSISTENCE = 2
"""Looks in a row at which a version must be worse before it is taken off traffic."""
WINDOWS_LIVE = 2
"""Windows of prompts after which a version that was never taken back is settled: its first, and one to compare with that."""


def decide(seen: Situation, memory: Memory, config: RunConfig, moment: datetime) -> Turn:
    """What follows at ``moment``, an aware time; to be remembered whatever becomes of the action."""
    if seen.live is None or seen.pinned:
        return Turn(memory)
    if ended := _orphaned(seen, memory):
        return Turn(memory) if seen.updating else Turn(replace(memory, trial=None), ended)
    memory = replace(memory, trial=_trial(seen, memory, config))
    action: Action | None = None
    if memory.trial and seen.prompts >= memory.trial.looked + config.drift.check_every:
        trial, legs = _look(seen, memory.trial, config)
        action = _verdict(seen, trial, legs, config)
        memory = _settled(seen, replace(memory, trial=trial), config)
    asked = _round(seen, memory, config)
    if asked:
        memory = replace(memory, questioned=seen.prompts)
    if seen.updating:  # its parent stays until it has ended
        return Turn(memory, None, asked)
    return Turn(memory, action or answer(seen, memory, config, moment), asked)


def answered(memory: Memory, asked: Round) -> Memory:
    """What to remember once a round of questions was answered; one that was not is asked again at its next time."""
    counts = {**memory.asked, **{version: memory.asked.get(version, 0) + asked.count for version in asked.versions}}
    return replace(memory, position=asked.position + asked.count, asked=counts)


def _trial(seen: Situation, memory: Memory, config: RunConfig) -> Trial | None:
    """The trial that goes on, or the one that begins now, or none."""
    found = _tried(seen, memory, config)
    if found is None:
        return None
    version, live = found
    going = memory.trial
    if going and (going.version, going.live) == found:
        return going
    return Trial(version, live, seen.prompts, seen.prompts)


def _tried(seen: Situation, memory: Memory, config: RunConfig) -> tuple[str, bool] | None:
    """The version on trial and whether it is live: a canary, else the live version, where an update made it."""
    if _ours(seen, seen.canary, seen.live) and config.update.promotion == "canary":
        return str(seen.canary), False
    if _ours(seen, seen.live, seen.before) and seen.live not in memory.settled:
        return str(seen.live), True
    return None


def _ours(seen: Situation, version: str | None, parent: str | None) -> bool:
    """Whether an update from ``parent`` made a version, which its gate accepted and nobody took off traffic."""
    judged = seen.judgement(version)
    return judged is not None and judged.accepted and judged.parent == parent and version not in seen.dropped


def _orphaned(seen: Situation, memory: Memory) -> EndCanary | None:
    """The end of a trial whose other side is live no more, as somebody changed that meanwhile; nothing else would end it."""
    going, judged = memory.trial, seen.judgement(seen.canary)
    if going is None or going.live or judged is None or going.version != seen.canary or judged.parent == seen.live:
        return None
    return EndCanary(going.version, f"it was compared with {judged.parent}, and {seen.live} is live since")


def _look(seen: Situation, trial: Trial, config: RunConfig) -> tuple[Trial, tuple[Leg, ...]]:
    now = seen.signals.get(trial.version, Signals())
    beside = seen.signals.get(str(seen.before if trial.live else seen.live), Signals())
    first = () if seen.moved else trial.first
    legs = compare(beside, now, config.drift, first=first)
    if trial.live and not trial.first and seen.prompts - trial.begun >= config.drift.window:
        trial = replace(trial, first=tuple(float(loss) for loss in now.nll))
    return replace(trial, looked=seen.prompts, worse=trial.worse + 1 if worse(legs) else 0), legs


def _verdict(seen: Situation, trial: Trial, legs: tuple[Leg, ...], config: RunConfig) -> Action | None:
    """The end of a trial at a look, if this is it."""
    bad = tuple(leg for leg in legs if leg.exceeded)
    if trial.live:
        if trial.worse < PERSISTENCE:
            return None
        return RollBack(trial.version, str(seen.before), f"worse than {seen.before}: {told(bad)}", legs)
    enough = len(seen.signals.get(trial.version, Signals()).nll) >= min(config.update.canary_replies, config.drift.window)
    if trial.worse >= PERSISTENCE or (enough and trial.worse):
        return EndCanary(trial.version, f"worse than {seen.live}: {told(bad)}", legs)
    if not enough:
        return None
    compared = told(legs) or "no ratings and no answers to compare"
    return Promote(trial.version, f"as a canary no worse than {seen.live}: {compared}", legs)


def _settled(seen: Situation, memory: Memory, config: RunConfig) -> Memory:
    """The trial of a live version ends after its windows, unless its last look was a bad one."""
    trial = memory.trial
    over = trial and trial.live and seen.prompts - trial.begun >= WINDOWS_LIVE * config.drift.window
    if trial is None or not over or trial.worse:
        return memory
    return replace(memory, trial=None, settled=(*memory.settled, trial.version))


def _round(seen: Situation, memory: Memory, config: RunConfig) -> Round | None:
    """Questions for the live version and the one it is compared with, more often while it is.

    No version is asked a question twice: it would give the same answer, which is no more evidence than once.
    """
    wanted = min(config.update.canary_questions, seen.questions)
    pause = config.drift.check_every if memory.trial else config.drift.window
    if not wanted or seen.prompts < memory.questioned + pause:
        return None
    beside = seen.before if memory.trial and memory.trial.live else seen.canary
    versions = tuple(v for v in (seen.live, beside) if v and memory.asked.get(v, 0) + wanted <= seen.questions)
    return Round(versions, memory.position, wanted) if versions else None
