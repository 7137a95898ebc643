"""The lines of a serving command: requests, and replicas that are lost, recover and are ready again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest

from compass_ray.cli.service_lines import ServiceLines
from compass_ray.serving.api.access_log import AccessLog, AccessRecord
from compass_ray.serving.service_poll import IngressActivity, ReplicaCounts, ServicePoll
from tests.unit.fakes import Clock

ROUTE = 'sw@v0002; language=sw; confidence=0.980; reason="identified as Swahili"'


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> ServiceLines:
    return ServiceLines(clock)


def _next(lines: ServiceLines, poll: ServicePoll) -> list[str]:
    return [line.plain.split(" ", 1)[1] for line in lines.next_lines(lambda _: poll)]


def _replicas(**counts: ReplicaCounts) -> ServicePoll:
    return ServicePoll(IngressActivity(), counts)


def _request(number: int, status: int = 200, route: str = ROUTE) -> AccessRecord:
    return AccessRecord(number, 1000.0, "POST", "/v1/chat/completions", status, 0.412, route, "req_1")


def test_each_request_is_one_line(lines: ServiceLines) -> None:
    poll = ServicePoll(IngressActivity("a", [_request(1), _request(2, 429, ""), _request(3, 0, "")]))
    assert _next(lines, poll) == [
        "POST /v1/chat/completions 200 412 ms sw@v0002 (identified as Swahili) req_1",
        "POST /v1/chat/completions 429 412 ms req_1",
        "POST /v1/chat/completions disconnected 412 ms req_1",
    ]


def test_no_line_of_several_ingress_replicas_repeats_or_is_left_out(lines: ServiceLines) -> None:
    """Each poll reaches one replica; the numbers of each begin at 1, as after a restart."""
    first, second = AccessLog(Clock()), AccessLog(Clock())

    def poll(log: AccessLog, seen: Mapping[str, int]) -> ServicePoll:
        return ServicePoll(IngressActivity(log.name, log.since(seen.get(log.name, 0))))

    printed = list[str]()
    for log, paths in ((first, "12"), (second, "3"), (first, "4"), (second, ""), (first, "5"), (second, "67"), (second, "8")):
        for path in paths:
            log.record("GET", f"/v1/{path}", 200, 0.0, "", "")
        printed += [line.plain.split(" ")[2] for line in lines.next_lines(partial(poll, log))]
    assert printed == [f"/v1/{path}" for path in "12345678"]


def test_retries_of_each_replica_are_counted_once(lines: ServiceLines) -> None:
    polls = [ServicePoll(IngressActivity(log, retries=retries)) for log, retries in (("a", 2), ("b", 0), ("a", 2), ("b", 1))]
    told = [line.rpartition(" ")[2] for poll in polls for line in _next(lines, poll)]
    assert told == ["2", "1"]


def test_a_path_cannot_begin_a_line_of_its_own(lines: ServiceLines) -> None:
    nasty = replace(_request(1, 404, ""), path="/x\n12:00:00 POST /v1\r\t\x1b[2J", request_id="a\nb")
    [line] = _next(lines, ServicePoll(IngressActivity("a", [nasty])))
    assert line == r"POST /x\n12:00:00 POST /v1\x0d\t\x1b[2J 404 412 ms a\nb"


def test_a_lost_replica_recovers(lines: ServiceLines, clock: Clock) -> None:
    steps: list[tuple[float, ReplicaCounts, list[str]]] = [
        (0, ReplicaCounts(1, 0), []),
        (1, ReplicaCounts(0, 0), ["adapter server lost: 0 of 1 running"]),
        (1, ReplicaCounts(0, 1), ["adapter server recovering: 1 starting"]),
        (1, ReplicaCounts(0, 1), []),
        (9, ReplicaCounts(1, 0), ["adapter server ready again after 11 s"]),
        (1, ReplicaCounts(1, 0), []),
        (1, ReplicaCounts(2, 0, is_scaling=True), []),
        (1, ReplicaCounts(2, 0), []),
        (1, ReplicaCounts(1, 0, is_scaling=True), []),
        (1, ReplicaCounts(1, 0), []),
        (1, ReplicaCounts(0, 1), ["adapter server lost: 0 of 1 running", "adapter server recovering: 1 starting"]),
    ]
    for seconds, counts, expected in steps:
        clock.now += seconds
        assert _next(lines, _replicas(adapters=counts)) == expected, counts


def test_the_start_of_a_service_is_no_loss(lines: ServiceLines) -> None:
    assert _next(lines, _replicas(adapters=ReplicaCounts(0, 1), ingress=ReplicaCounts(1, 0))) == []
    assert _next(lines, _replicas(adapters=ReplicaCounts(1, 0), ingress=ReplicaCounts(1, 0))) == []


def test_a_service_that_does_not_answer_is_told_once(lines: ServiceLines) -> None:
    def fail(_: Mapping[str, int]) -> ServicePoll:
        raise TimeoutError("no answer\nwith frames")

    assert [line.plain.split(" ", 1)[1] for line in lines.next_lines(fail)] == ["the service does not answer: no answer"]
    assert lines.next_lines(fail) == []
    assert _next(lines, ServicePoll(IngressActivity())) == ["the service answers again"]
    assert _next(lines, ServicePoll(IngressActivity())) == []


def test_retries_and_new_decisions_are_told(lines: ServiceLines) -> None:
    old: Mapping[str, object] = {"time": 999.0, "kind": "promotion", "language": "sw", "to": "v0001"}
    new: Mapping[str, object] = {"time": 1001.0, "kind": "promotion", "language": "sw", "to": "v0002", "reason": "accepted\x1b"}
    poll = ServicePoll(IngressActivity(retries=2, decisions=[old, new]))
    assert _next(lines, poll) == [
        "adapter server lost; requests that are retried on another one: 2",
        "sw: promotion v0002: accepted\\x1b",
    ]
    assert _next(lines, poll) == []
