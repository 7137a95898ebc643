"""A clock of Unix seconds that a jump of the system's clock does not move.

Between two calls it advances by elapsed time, and follows the system's clock as long as both agree. If the system's clock
jumps in either direction, its new time counts only after it has lasted for a while. So a clock that jumps ahead and back
changes nothing, and a correction or a suspended machine is followed with a delay. At a start there is no elapsed time: then
a time far ahead of the newest stored record is a jump, and the clock continues from that record.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

logger = logging.getLogger(__name__)

_TOLERANCE_S = 60.0
"""Difference between both clocks over one call that is no jump."""
LASTING_S = 3600.0
"""How long a new time of the system's clock must last before it counts."""


@dataclass(frozen=True)
class _Reading:
    """The system's clock (Unix seconds) and the elapsed time (seconds) at one moment."""

    wall: float
    elapsed: float

    def at(self, elapsed: float) -> float:
        """The Unix time at an elapsed time, counted from this reading."""
        return self.wall + (elapsed - self.elapsed)

    def agrees_with(self, later: _Reading) -> bool:
        """Whether the system's clock advanced by the elapsed time."""
        return abs(later.wall - self.at(later.elapsed)) <= _TOLERANCE_S


class SteadyClock:
    """Unix seconds without jumps. Thread-safe as far as its clocks are: a lost reading only delays a confirmation."""

    def __init__(self, wall: Callable[[], float], elapsed: Callable[[], float], lasting: float = LASTING_S) -> None:
        """Start at the system's time.

        Args:
            wall: the system's clock, in Unix seconds.
            elapsed: a monotonic clock, in seconds.
            lasting: seconds for which a new time must last before it counts.
        """
        self._wall, self._elapsed, self._lasting = wall, elapsed, lasting
        self._anchor = self._read()
        self._jump: _Reading | None = None
        self._newest, self._is_confirmed = math.inf, True

    def __call__(self) -> float:
        """The time now, in Unix seconds."""
        elapsed = self._follow().elapsed
        return self._anchor.at(elapsed)

    def confirmed(self) -> float:
        """As a call; minus infinity while one look at the system's clock is all there is. For what cannot be undone."""
        now = self()
        return now if self._is_confirmed else -math.inf

    def compare_with(self, newest: float | None) -> None:
        """At a start: do not confirm a time that is far ahead of the newest stored record before it has lasted.

        Until then the clock continues from that record. So a record of this time does not confirm it at the next start.
        """
        self._newest = math.inf if newest is None else newest
        self._is_confirmed = self._is_near_newest(self._anchor)
        if not self._is_confirmed:
            self._anchor, self._jump = replace(self._anchor, wall=self._newest), self._anchor

    def _follow(self) -> _Reading:
        now = self._read()
        if self._anchor.agrees_with(now) if self._is_confirmed else self._is_near_newest(now):
            self._accept(now)
        elif self._jump is None or not self._jump.agrees_with(now):
            self._jump, by = now, now.wall - self._anchor.at(now.elapsed)
            logger.warning("clock: the system's clock jumped by %+.0f s; it counts if it lasts %.0f s", by, self._lasting)
        elif now.elapsed - self._jump.elapsed >= self._lasting:
            self._accept(now)
        return now

    def _accept(self, now: _Reading) -> None:
        self._anchor, self._jump, self._is_confirmed = now, None, True

    def _is_near_newest(self, reading: _Reading) -> bool:
        return reading.wall <= self._newest + self._lasting

    def _read(self) -> _Reading:
        return _Reading(self._wall(), self._elapsed())
