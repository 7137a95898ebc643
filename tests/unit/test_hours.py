"""Hours of the day: over midnight, up to midnight, in every zone, and minute by minute against an independent count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import Hours, within

MINUTES = st.integers(0, 24 * 60 - 1)
DAY = datetime(2026, 3, 1, tzinfo=UTC)


@st.composite
def hours(draw: st.DrawFn) -> Hours:
    start = draw(MINUTES)
    end = draw(MINUTES.filter(lambda minute: minute != start))
    return Hours.parse(f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}")


def _walked(open_: Hours) -> set[int]:
    """The minutes from the first to the last, one after another round the clock."""
    minutes, minute = set(), open_.start
    while minute != open_.end % 1440:
        minutes.add(minute)
        minute = (minute + 1) % 1440
    return minutes


@given(hours(), MINUTES, st.integers(-12, 14))
def test_within_is_what_a_walk_round_the_clock_meets(open_: Hours, minute: int, zone: int) -> None:
    moment = (DAY + timedelta(minutes=minute)).astimezone(timezone(timedelta(hours=zone)))
    assert within(open_, moment) == (minute in _walked(open_))


@given(hours(), st.integers(0, 48 * 3600))
def test_they_open_at_the_next_minute_that_is_within(open_: Hours, second: int) -> None:
    moment = DAY + timedelta(seconds=second)
    opens = open_.opens(moment)
    assert within(open_, opens)
    assert timedelta(0) <= opens - moment < timedelta(days=1)
    if opens != moment:
        assert not within(open_, moment)
        assert not within(open_, opens - timedelta(seconds=1))
        assert (opens.hour * 60 + opens.minute, opens.second) == (open_.start, 0)


@given(hours())
def test_they_are_read_as_they_are_written(open_: Hours) -> None:
    assert Hours.parse(str(open_)) == open_


def test_up_to_midnight_and_no_further() -> None:
    late = Hours.parse("18:00-24:00")
    assert within(late, DAY.replace(hour=23, minute=59))
    assert not within(late, DAY)
    assert Hours.parse("18:00-00:00") == late
    assert within(Hours.parse("00:00-01:00"), DAY)


@pytest.mark.parametrize("text", ["", "22:00", "22:00-22:00", "00:00-24:00", "24:01-02:00", "12:60-13:00", "22:00-06:00 EAT"])
def test_what_are_no_hours(text: str) -> None:
    with pytest.raises(ValueError, match="expected two times of a day in UTC that differ"):
        Hours.parse(text)
