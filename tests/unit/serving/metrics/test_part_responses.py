"""A part that does not respond: it starts, and later it is down."""

from __future__ import annotations

from compass_ray.serving.metrics.part_responses import START_SECONDS, PartResponses
from compass_ray.serving.metrics.request_stats import RequestStatistics
from tests.unit.fakes import Clock

ERROR = TimeoutError()


def test_a_part_that_never_responds_is_starting_and_later_down() -> None:
    clock, statistics = Clock(1000.0), RequestStatistics(lambda: 0.0, [])
    responses = PartResponses(clock)
    first = responses.describe_silence("monitor", None, ERROR)
    assert first == {"starting": True}
    clock.now += START_SECONDS
    later = responses.describe_silence("monitor", first, ERROR)
    assert later == {"unreachable": "TimeoutError"}
    statistics.export_parts({"monitor": later, "controller": None}, 0)
    assert statistics.down == ("monitor",)


def test_a_part_that_responded_keeps_its_last_status_and_has_the_present_reason() -> None:
    responses = PartResponses(Clock(1000.0))
    responses.record("monitor")
    silent = responses.describe_silence("monitor", {"languages": {"sw": 1}}, ERROR)
    assert silent == {"languages": {"sw": 1}, "unreachable": "TimeoutError"}
    assert responses.describe_silence("monitor", silent, ConnectionError())["unreachable"] == "ConnectionError"
