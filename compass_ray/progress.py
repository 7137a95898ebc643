"""Progress reports of long work: one callable, for a terminal, a job log or a test; and an estimate of the time that remains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol


class Progress(Protocol):
    """Callback that a stage calls after each part of its work."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` parts of the stage are finished."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore all reports."""


class RemainingTime:
    """Estimates the time until all stages end, from the reports of the stages so far.

    A stage that has begun takes its time so far, divided by its finished share. A stage that has not begun takes its usual share
    of the time, at the pace of the stages before it.
    """

    def __init__(self, shares: Mapping[str, float], clock: Callable[[], float]) -> None:
        """Start the clock.

        Args:
            shares: usual share of the time of each stage that has work, in any unit; stages without work are not in it.
            clock: returns seconds.
        """
        self._shares, self._clock = dict(shares), clock
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._finished: dict[str, float] = {}
        self._newest = clock()

    def record(self, stage: str, done: int, total: int) -> None:
        """Record a report. A stage begins where the latest report of another stage was."""
        now = self._clock()
        if stage not in self._started:
            self._started[stage] = self._newest if done else now
        self._finished[stage] = done / total if total else 1.0
        self._ended[stage] = self._newest = now

    def seconds(self) -> float | None:
        """Seconds until the last stage ends; None before the first part of a stage with work is finished."""
        now, known, passed = self._clock(), 0.0, 0.0
        ahead = 0.0
        for stage, finished in self._finished.items():
            if finished and stage in self._shares:
                whole = (self._ended[stage] - self._started[stage]) / finished
                known, passed = known + self._shares[stage], passed + whole
                ahead += max(0.0, self._started[stage] + whole - now) if finished < 1 else 0.0
        if not known:
            return None
        pace = passed / known
        return ahead + pace * sum(share for stage, share in self._shares.items() if not self._finished.get(stage))
