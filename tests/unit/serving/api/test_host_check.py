"""Requests under a foreign host name are refused, so a page in a browser cannot reach a service on its reader's machine."""

from __future__ import annotations

import pytest

from compass_ray.config import ConfigError, load_run_config
from compass_ray.serving.api.host_check import default_hosts
from tests.unit.serving.api.endpoint import Endpoint

LOOPBACK = default_hosts("127.0.0.1")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
def test_a_service_on_loopback_answers_under_the_machine_s_own_names(host: str) -> None:
    endpoint = Endpoint(hosts=LOOPBACK)
    for path in ("/", "/v1/models", "/metrics"):
        assert endpoint.request("GET", path, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "x@localhost", "", "[::1", "a b"],
)
def test_any_other_name_is_refused(host: str) -> None:
    endpoint = Endpoint(hosts=LOOPBACK)
    for path in ("/", "/v1/models", "/metrics", "/v1/compass/status", "/none"):
        response = endpoint.request("GET", path, headers={"host": host})
        assert (response.status_code, response.json()["error"]["code"]) == (421, "host_not_allowed")
        assert "evil" not in response.text


def test_a_refused_request_generates_nothing() -> None:
    endpoint = Endpoint(hosts=LOOPBACK)
    assert endpoint.chat(headers={"host": "evil.example"}).status_code == 421
    assert endpoint.backend.requests == []


def test_health_is_answered_under_any_name() -> None:
    assert Endpoint(hosts=LOOPBACK).request("GET", "/healthz", headers={"host": "10.0.0.7:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("hosts", "name", "status"),
    [
        (None, "evil.example", 200),
        (("*",), "evil.example", 200),
        (("api.example.org",), "api.example.org:443", 200),
        (("api.example.org",), "localhost", 421),
        (("*.example.org",), "a.b.example.org", 200),
        (("*.example.org",), "example.org", 421),
        (("*.example.org",), "badexample.org", 421),
    ],
)
def test_a_setting_names_the_hosts(hosts: tuple[str, ...] | None, name: str, status: int) -> None:
    assert Endpoint(hosts=hosts).request("GET", "/v1/models", headers={"host": name}).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gpu-machine"])
def test_at_other_addresses_any_name_is_accepted_by_default(host: str) -> None:
    assert default_hosts(host) is None


def test_another_loopback_address_is_a_name_too() -> None:
    assert "127.0.0.2" in (default_hosts("127.0.0.2") or ())


@pytest.mark.parametrize("name", ["https://api.example.org", "api.example.org:443", "a*.org", "", "a b"])
def test_a_setting_that_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="allowed_hosts"):
        load_run_config("atlas-test", overrides=[f"serve.allowed_hosts=['{name}']"])
