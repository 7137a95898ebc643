"""The progress of the stages, and the time that remains."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from compass_ray.cli import progress_display
from compass_ray.progress import RemainingTime
from tests.unit.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_known_before_a_part_is_finished(clock: Clock) -> None:
    remaining = RemainingTime({"embed": 10, "train": 30}, clock)
    assert remaining.seconds() is None
    remaining.record("embed", 0, 4)
    clock.now += 5
    assert remaining.seconds() is None


def test_a_stage_continues_at_its_pace_and_later_stages_at_that_of_the_run(clock: Clock) -> None:
    remaining = RemainingTime({"embed": 10, "train": 30}, clock)
    clock.now += 5  # 5 s for a quarter: 20 s in all, so twice the usual 10
    remaining.record("embed", 1, 4)
    assert remaining.seconds() == pytest.approx(15 + 2 * 30)
    clock.now += 15
    remaining.record("embed", 4, 4)
    assert remaining.seconds() == pytest.approx(60)
    clock.now += 10  # the first report of a stage comes with its first part
    remaining.record("train", 1, 2)
    assert remaining.seconds() == pytest.approx(10)
    clock.now += 4
    assert remaining.seconds() == pytest.approx(6)
    clock.now += 6
    remaining.record("train", 2, 2)
    assert remaining.seconds() == pytest.approx(0)


def test_a_late_part_makes_no_negative_time(clock: Clock) -> None:
    remaining = RemainingTime({"train": 30}, clock)
    clock.now += 10
    remaining.record("train", 1, 2)
    clock.now += 100
    assert remaining.seconds() == 0


def test_complete_stages_do_not_count(clock: Clock) -> None:
    remaining = RemainingTime({"train": 30}, clock)
    remaining.record("pool", 3, 3)
    assert remaining.seconds() is None


def test_a_terminal_shows_bars_and_the_remaining_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(progress_display, "err", Console(file=shown, force_terminal=True, width=100))
    with progress_display.progress_bars(quiet=False, stages=["embed", "train"]) as progress:
        progress("embed", 4, 4)
        progress("train", 1, 2)
        progress("train", 2, 2)
        print("noise of a library")
    assert all(text in shown.getvalue() for text in ("embed", "train", "all", "2/2", "about", "left"))
    assert capsys.readouterr().out == ""


def test_no_colour_is_printed_where_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    Console(file=shown, force_terminal=True).print("state", style="red")
    assert "\x1b[31m" not in shown.getvalue()
