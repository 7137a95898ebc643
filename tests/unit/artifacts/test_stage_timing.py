"""Stage times by attempt: stages with work are recorded, and a killed attempt keeps its finished stages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir, begin_attempt, read_attempts
from compass_ray.artifacts.stage_timing import StageTimer


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def _clock(run: RunDir, *times: float) -> StageTimer:
    ticks: Iterator[float] = iter(times)
    return StageTimer(run, dict, now=lambda: next(ticks))


def test_a_stage_is_recorded_with_start_and_duration(run: RunDir) -> None:
    clock = _clock(run, 100, 103, 110, 110, 115)
    with clock.measure("pool", works=True):
        pass
    with clock.measure("embed", works=True):
        pass
    [attempt] = read_attempts(run)
    assert [(t.stage, t.started, t.seconds) for t in attempt.stages] == [("pool", 3, 7), ("embed", 10, 5)]
    assert attempt.makespan == 15
    assert clock.seconds == {"pool": 7, "embed": 5}


def test_stages_may_overlap(run: RunDir) -> None:
    clock = _clock(run, 0, 1, 2, 5, 9)
    with clock.measure("train", works=True), clock.measure("select", works=True):
        pass
    assert clock.seconds == {"train": 8, "select": 3}
    assert read_attempts(run)[0].makespan == 9


def test_a_call_without_work_leaves_no_record(run: RunDir) -> None:
    with _clock(run, 0, 1, 2).measure("pool", works=False):
        pass
    assert read_attempts(run) == []
    assert not Path(run.path).exists()


def test_a_failed_stage_is_timed_too(run: RunDir) -> None:
    clock = _clock(run, 0, 1, 4)
    with pytest.raises(KeyError), clock.measure("train", works=True):
        raise KeyError
    assert read_attempts(run)[0].stages[0].seconds == 3


def test_attempts_are_sorted_by_time_and_damaged_ones_skipped(run: RunDir) -> None:
    later, earlier = (begin_attempt(datetime(2026, 1, day, tzinfo=UTC)) for day in (2, 1))
    for attempt in (later, earlier):
        attempt.store(run)
    run.artifact("attempts").store_bytes("00000000T000000-aaaaaa.json", b'{"name": 3}')
    run.artifact("attempts").store_bytes("00000000T000000-bbbbbb.json", b"{")
    assert read_attempts(run) == [earlier, later]
