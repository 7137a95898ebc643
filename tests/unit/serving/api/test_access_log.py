"""The access log: every request of a client, and nothing that it wrote."""

from __future__ import annotations

import pytest

from compass_ray.serving.api.access_log import CAPACITY, AccessLog
from compass_ray.serving.api.application import build_api
from tests.unit.serving.api.endpoint import Endpoint


@pytest.fixture
def log(endpoint: Endpoint) -> AccessLog:
    log = AccessLog(endpoint.clock)
    endpoint.api = build_api(endpoint.service, endpoint._status, access_log=log)
    return log


def test_requests_of_clients_and_all_refusals_are_recorded(endpoint: Endpoint, log: AccessLog) -> None:
    endpoint.chat("sw siri")
    for path in ("/healthz", "/metrics", "/v1/compass/status", "/", "/nowhere?siri"):
        endpoint.request("GET", path)
    first, second = log.since(0)
    assert (first.method, first.path, first.status, first.number) == ("POST", "/v1/chat/completions", 200, 1)
    assert first.route.startswith("sw@v0002; ")
    assert first.request_id.startswith("req_")
    assert (second.path, second.status, second.route) == ("/nowhere", 404, "")
    assert "siri" not in repr(log.since(0))
    assert log.since(1) == [second]
    assert log.since(2) == []


def test_the_oldest_requests_leave(endpoint: Endpoint) -> None:
    log = AccessLog(endpoint.clock)
    for _ in range(CAPACITY + 5):
        log.record("GET", "/v1/models", 200, endpoint.clock(), "", "")
    assert [record.number for record in log.since(0)][:2] == [6, 7]
