"""Daily time windows: across midnight, up to midnight, in every zone, and minute by minute against an independent count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import DailyTimeWindow, is_within

MINUTES = st.integers(0, 24 * 60 - 1)
DAY = datetime(2026, 3, 1, tzinfo=UTC)


@st.composite
def hours(draw: st.DrawFn) -> DailyTimeWindow:
    start = draw(MINUTES)
    end = draw(MINUTES.filter(lambda minute: minute != start))
    return DailyTimeWindow.parse(f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}")


def _walked(open_: DailyTimeWindow) -> set[int]:
    """The minutes of the window, counted one by one."""
    minutes, minute = set(), open_.start
    while minute != open_.end % 1440:
        minutes.add(minute)
        minute = (minute + 1) % 1440
    return minutes


@given(hours(), MINUTES, st.integers(-12, 14))
def test_is_within_agrees_with_a_count_of_minutes(open_: DailyTimeWindow, minute: int, zone: int) -> None:
    moment = (DAY + timedelta(minutes=minute)).astimezone(timezone(timedelta(hours=zone)))
    assert is_within(open_, moment) == (minute in _walked(open_))


@given(hours(), st.integers(0, 48 * 3600))
def test_the_next_opening_is_the_first_minute_within(open_: DailyTimeWindow, second: int) -> None:
    moment = DAY + timedelta(seconds=second)
    opens = open_.next_opening(moment)
    assert is_within(open_, opens)
    assert timedelta(0) <= opens - moment < timedelta(days=1)
    if opens != moment:
        assert not is_within(open_, moment)
        assert not is_within(open_, opens - timedelta(seconds=1))
        assert (opens.hour * 60 + opens.minute, opens.second) == (open_.start, 0)


@given(hours())
def test_a_window_parses_its_own_text(open_: DailyTimeWindow) -> None:
    assert DailyTimeWindow.parse(str(open_)) == open_


def test_up_to_midnight_and_no_further() -> None:
    late = DailyTimeWindow.parse("18:00-24:00")
    assert is_within(late, DAY.replace(hour=23, minute=59))
    assert not is_within(late, DAY)
    assert DailyTimeWindow.parse("18:00-00:00") == late
    assert is_within(DailyTimeWindow.parse("00:00-01:00"), DAY)


@pytest.mark.parametrize("text", ["", "22:00", "22:00-22:00", "00:00-24:00", "24:01-02:00", "12:60-13:00", "22:00-06:00 EAT"])
def test_invalid_windows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected START-END in UTC, for example 22:00-06:00"):
        DailyTimeWindow.parse(text)
