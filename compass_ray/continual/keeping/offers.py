"""What becomes of the window that the monitor offers: an update, or a word to the monitor, once.

Key property: a window whose gate has spoken gets no second update; one that was begun is gone on with, at any hour, and one that
was accepted is put on traffic, whoever was killed in between. A part of `deciding`, and as pure.
"""

from __future__ import annotations

from datetime import datetime

from compass_ray.config import Hours, RunConfig
from compass_ray.continual.keeping.actions import Action, Release, Reset, Update
from compass_ray.continual.keeping.situation import Memory, Situation

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 3600.0
"""Seconds before a failed attempt is made again, doubled after each in a row."""
MOST_FAILURES = 12
"""Attempts in a row, over some two hours and a half, after which a window is let go: some can never come to a verdict."""


def answer(seen: Situation, memory: Memory, config: RunConfig, moment: datetime) -> Action | None:
    """What becomes of the window that the monitor offers, if anything now."""
    if seen.offered is None:
        return None
    if seen.offered.window is None:
        return Release(seen.offered.problem)
    if config.update.strategy == "static":
        return Release("nothing is trained, as update.strategy is static")
    judged = next((each for each in seen.judged if each.window == seen.offered.window), None)
    if judged is None:
        return _begin(seen, memory, seen.offered.window, config, moment)
    if judged.version == seen.live:
        return Reset(judged.version)
    if judged.version == seen.canary:
        return None
    if judged.version not in seen.recorded and judged.version not in seen.dropped:  # killed before it could say so
        return _unless_failed(Update(judged.window), seen, moment)
    if not judged.accepted:
        return Release(f"the gate refused {judged.version}")
    if judged.version in seen.dropped or judged.parent != seen.live or config.update.promotion == "none":
        return Release(f"{judged.version} is not served")
    return _unless_failed(Update(judged.window), seen, moment)  # killed before it could serve what was accepted


def _begin(seen: Situation, memory: Memory, window: str, config: RunConfig, moment: datetime) -> Action | None:
    if seen.unfinished != window:
        hours = Hours.parse(config.update.hours) if config.update.hours else None
        closed = hours is not None and hours.opens(moment) != moment
        if closed or memory.trial or seen.canary:  # what it would be updated from may not stay
            return None
    return _unless_failed(Update(window), seen, moment)


def _unless_failed(update: Update, seen: Situation, moment: datetime) -> Update | Release | None:
    failed = seen.failed
    if failed.times >= MOST_FAILURES:
        return Release(f"{failed.times} attempts in a row came to no verdict; the decisions 'update failed' say why")
    pause = min(_FIRST_PAUSE * 2 ** (failed.times - 1), _LONGEST_PAUSE) if failed.times else 0.0
    return update if moment.timestamp() >= failed.last + pause else None
