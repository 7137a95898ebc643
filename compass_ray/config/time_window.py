"""A daily time window in UTC, which may cross midnight. It reads no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_DAY = 24 * 60
_SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")


@dataclass(frozen=True)
class DailyTimeWindow:
    """From minute ``start`` of the day (0 to 1439) up to minute ``end`` (1 to 1440), which is excluded."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> DailyTimeWindow:
        """Parse a text such as ``22:00-06:00``.

        Raises:
            ValueError: not two different times of day.

        >>> DailyTimeWindow.parse("22:00-06:00")
        DailyTimeWindow(start=1320, end=360)
        """
        found = _SPAN.fullmatch(text.strip())
        start, end = (_minute(*found.groups()[i : i + 2]) for i in (0, 2)) if found else (None, None)
        if start is None or end is None or start % _DAY == end % _DAY:
            raise ValueError(f"invalid time window {text!r}; expected START-END in UTC, for example 22:00-06:00")
        return cls(start % _DAY, end or _DAY)

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return "-".join(f"{minute // 60:02d}:{minute % 60:02d}" for minute in (self.start, self.end))

    def next_opening(self, moment: datetime) -> datetime:
        """The next start of the window in UTC, or ``moment`` itself if it is within.

        >>> DailyTimeWindow.parse("22:00-06:00").next_opening(datetime(2026, 3, 1, 12, 30, tzinfo=UTC)).isoformat()
        '2026-03-01T22:00:00+00:00'
        """
        now = moment.astimezone(UTC)
        if is_within(self, now):
            return now
        begin = now.replace(hour=self.start // 60, minute=self.start % 60, second=0, microsecond=0)
        return begin if begin > now else begin + timedelta(days=1)


def is_within(window: DailyTimeWindow, moment: datetime) -> bool:
    """Whether an aware time, of any zone, is within the window.

    >>> night = DailyTimeWindow.parse("22:00-06:00")
    >>> [is_within(night, datetime(2026, 3, 1, hour, tzinfo=UTC)) for hour in (21, 22, 0, 5, 6)]
    [False, True, True, True, False]
    """
    now = moment.astimezone(UTC)
    minute = now.hour * 60 + now.minute
    if window.start < window.end:
        return window.start <= minute < window.end
    return minute >= window.start or minute < window.end


def _minute(hour: str, minute: str) -> int | None:
    of_day = int(hour) * 60 + int(minute)
    return of_day if int(minute) < 60 and of_day <= _DAY else None
