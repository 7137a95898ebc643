"""A system clock that jumps neither deletes prompts early nor stops their deletion."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.monitoring.steady_clock import LASTING_S, SteadyClock
from tests.unit.fakes import Clock, MakeAdapter, WordAssigner

DAY, HOUR = 86_400.0, 3600.0
AHEAD = 400 * DAY


@dataclass
class Clocks:
    """The true time, and a system clock that is wrong by ``error``."""

    now: float = 1000 * DAY
    error: float = 0.0

    def wall(self) -> float:
        return self.now + self.error

    def elapsed(self) -> float:
        return self.now - 999 * DAY


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@given(steps=st.lists(st.tuples(st.floats(1, 0.9 * HOUR), st.sampled_from([0.0, AHEAD, -AHEAD, 90.0])), max_size=30))
def test_jumps_that_do_not_last_move_nothing(steps: list[tuple[float, float]]) -> None:
    clocks = Clocks()
    clock = SteadyClock(clocks.wall, clocks.elapsed)
    for seconds, error in steps:
        clocks.error = error
        clock()
        clocks.now += seconds
        clocks.error = 0.0
        assert clock() == clock.confirmed() == pytest.approx(clocks.now)


@pytest.mark.parametrize("error", [AHEAD, -AHEAD, 5 * HOUR])
def test_a_new_time_that_lasts_is_followed(clocks: Clocks, error: float) -> None:
    clock = SteadyClock(clocks.wall, clocks.elapsed)
    clocks.error = error
    assert clock() == clocks.now
    clocks.now += LASTING_S - 1
    assert clock() == clocks.now
    clocks.now += 1
    assert clock() == clock.confirmed() == clocks.now + error


def test_a_clock_that_is_slightly_fast_is_followed(clocks: Clocks) -> None:
    clock = SteadyClock(clocks.wall, clocks.elapsed)
    for _ in range(200):
        clocks.now += 60
        clocks.error += 0.5
        assert clock() == clocks.wall()


@pytest.fixture(autouse=True)
def served(run: RunDir, clock: Clock, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001", clock=clock)


def _start(run: RunDir, config: RunConfig, clocks: Clocks) -> TrafficMonitor:
    return TrafficMonitor(run, config, WordAssigner(), clocks.wall, elapsed=clocks.elapsed)


def _record(monitor: TrafficMonitor, number: int, time: float) -> None:
    monitor.record([Observation(f"id-{number}", "sw", f"siri {number} 0", "v0001", 1.5, time)])


def _texts(run: RunDir) -> int:
    return (run.read_monitor("traffic.jsonl") or b"").count(b"siri")


def test_a_look_at_a_clock_far_ahead_deletes_nothing_and_deletion_goes_on(run: RunDir, config: RunConfig, clocks: Clocks) -> None:
    monitor = _start(run, config, clocks)
    _record(monitor, 1, clocks.now)
    clocks.error = AHEAD
    _record(monitor, 2, clocks.wall())
    assert _texts(run) == 2
    clocks.error = 0.0
    days = 0
    for _ in range(60 * 24):  # calls by the hour
        clocks.now += HOUR
        monitor.status()
        days += bool(_texts(run)) / 24
    assert 29.9 <= days <= 30
    assert _texts(run) == 0


def test_prompts_are_dated_by_the_true_time_while_the_clock_is_wrong(run: RunDir, config: RunConfig, clocks: Clocks) -> None:
    monitor = _start(run, config, clocks)
    for number, error in enumerate([AHEAD, 0.0]):
        clocks.error = error
        _record(monitor, number, clocks.wall())
    times = [line["time"] for line in jsonl_log.read(run, "traffic.jsonl") if line.get("event") == "prompt"]
    assert times == [clocks.now] * 2


def test_a_monitor_that_starts_far_ahead_waits_before_it_deletes(run: RunDir, config: RunConfig, clocks: Clocks) -> None:
    _record(_start(run, config, clocks), 1, clocks.now)
    clocks.error = AHEAD
    monitor = _start(run, config, clocks)
    monitor.status()
    clocks.error = 0.0
    for _ in range(3):
        clocks.now += HOUR
        monitor.status()
    assert _texts(run) == 1, "the clock was corrected"
    clocks.now += 40 * DAY
    monitor = _start(run, config, clocks)
    assert _texts(run) == 1
    clocks.now += HOUR
    monitor.status()
    assert _texts(run) == 0, "the machine was off for 40 days"


def test_a_monitor_that_starts_soon_after_its_last_prompt_deletes_at_once(run: RunDir, config: RunConfig, clocks: Clocks) -> None:
    monitor = _start(run, config, clocks)
    _record(monitor, 1, clocks.now)
    clocks.now += 30 * DAY - 0.5 * HOUR
    _record(monitor, 2, clocks.now)
    clocks.now += HOUR
    _start(run, config, clocks)
    assert _texts(run) == 1


def test_a_prompt_of_a_wrong_clock_confirms_no_time_at_the_next_start(run: RunDir, config: RunConfig, clocks: Clocks) -> None:
    _record(_start(run, config, clocks), 1, clocks.now)
    clocks.error = AHEAD
    for number in range(2, 5):
        _record(_start(run, config, clocks), number, clocks.wall())
        clocks.now += 60
    _start(run, config, clocks).status()
    assert _texts(run) == 4
    times = [each["time"] for line in jsonl_log.read(run, "traffic.jsonl") for each in line.get("window", [])]
    assert max(times) <= clocks.now, "no prompt is stored longer than its days"


@pytest.mark.parametrize("left", ["feedback.jsonl", "corrections.jsonl", "checks.jsonl"])
def test_without_a_traffic_log_other_records_confirm_the_time(run: RunDir, config: RunConfig, clocks: Clocks, left: str) -> None:
    monitor = _start(run, config, clocks)
    check = {"language": "sw", "prompts": 1, "divergence": 0.0, "threshold": 1.0, "time": clocks.now}
    jsonl_log.append(run, "checks.jsonl", [check])
    _record(monitor, 1, clocks.now)
    monitor.record_feedback([Feedback("id-1", "bad", "siri", None, None, clocks.now)])
    for file in {"traffic.jsonl", "feedback.jsonl", "corrections.jsonl", "checks.jsonl"} - {left}:
        run.delete_monitor(file)
    clocks.error = AHEAD
    assert _start(run, config, clocks).clock() == clocks.now
