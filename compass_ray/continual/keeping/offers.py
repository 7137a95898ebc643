"""What becomes of the window that the monitor offers: an update, or a word to the monitor, once.

Key property: a window whose gate has spoken gets no second update; one that was begun is gone on with, at any hour, and one that
was accepted is put on traffic, whoever was killed in between. A part of `deciding`, and as pure.
"""

from __future__ import annotations

from datetime import datetime

from compass_ray.config import DailyTimeWindow, RunConfig
from compass_ray.continual.keeping.actions import Action, DiscardWindow, ResetReference, StartUpdate
from compass_ray.continual.keeping.situation import ControllerState, LanguageState

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
