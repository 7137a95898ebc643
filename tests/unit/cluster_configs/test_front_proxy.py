"""The shipped proxy refuses what Ray Serve's own proxy accepts, and changes nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from benchmarks.speed import nginx_process
from compass_ray.config import ServeConfig
from tests.unit.cluster_configs.config_files import CONFIGS, load
from tests.unit.cluster_configs.front_proxy import Guarded, guard

LIMITS = (CONFIGS / "nginx" / "limits.conf").read_text("utf-8")
ADDRESS_LIMIT = int(re.findall(r"limit_conn compass_ray_addresses (\d+);", LIMITS)[0])
needs_nginx = pytest.mark.skipif(nginx_process.NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")


@pytest.fixture(params=[nginx_process.on_machines, nginx_process.on_kubernetes], ids=["machines", "kubernetes"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    with guard(request.param(), tmp_path) as guarded:
        yield guarded


@needs_nginx
def test_a_request_passes_with_its_body_path_and_host(proxy: Guarded) -> None:
    with proxy.client() as client:
        assert client.post("/v1/chat/completions?a=%2F", content=b"{}", headers={"authorization": "Bearer x"}).text == "ok"
    (seen,) = proxy.app.requests
    assert (seen.url.path, seen.url.query, seen.headers["host"]) == ("/v1/chat/completions", "a=%2F", nginx_process.HOST)
    assert seen.headers["authorization"] == "Bearer x"


@needs_nginx
@pytest.mark.parametrize("size", [9_000, 1_000_000])
def test_a_long_header_is_refused_and_does_not_reach_the_service(proxy: Guarded, size: int) -> None:
    header = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * size + b"\r\n\r\n"
    answer = proxy.send_raw(header)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert proxy.app.requests == []
    with proxy.client() as client:
        assert client.get("/v1/models").status_code == 200, "other clients are served"


@needs_nginx
def test_many_short_header_lines_are_refused_above_32_kib(proxy: Guarded) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(40))
    answer = proxy.send_raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert proxy.app.requests == []


@needs_nginx
def test_a_body_above_the_endpoint_s_limit_is_refused_in_the_api_s_shape(proxy: Guarded) -> None:
    limit = ServeConfig().max_body_bytes
    with proxy.client() as client:
        assert client.post("/v1/completions", content=b" " * limit).status_code == 200
        refused = client.post("/v1/completions", content=b" " * (limit + 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
    assert len(proxy.app.requests) == 1


@needs_nginx
@pytest.mark.parametrize(
    "path", ["/-/routes", "/-/healthz", "//-/routes", "/%2d/routes", "/v1/../-/routes", "/v1%2f..%2f-/routes"]
)
def test_the_paths_of_ray_serve_are_not_reachable(proxy: Guarded, path: str) -> None:
    answer = proxy.send_raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404")
    assert proxy.app.requests == []


@needs_nginx
def test_headers_that_ray_serve_obeys_are_dropped_and_the_client_s_address_is_the_connection_s(proxy: Guarded) -> None:
    claimed = {"x-request-timeout-seconds": "-1", "x-request-disconnect-disabled": "?1", "serve_multiplexed_model_id": "x"}
    claimed |= {"x-real-ip": "192.0.2.7", "forwarded": "for=192.0.2.7", "x-forwarded-host": "evil.example"}
    with proxy.client() as client:
        client.get("/v1/models", headers=claimed)
        client.get("/v1/models", headers={"x-forwarded-for": "192.0.2.7"})
    first, second = proxy.app.requests
    assert not claimed.keys() & first.headers.keys()
    assert first.headers["x-forwarded-for"] == "127.0.0.1"
    behind_an_ingress = proxy.nginx.context is None
    assert second.headers["x-forwarded-for"] == ("192.0.2.7" if behind_an_ingress else "127.0.0.1")


@needs_nginx
def test_each_event_of_a_stream_is_forwarded_at_once(proxy: Guarded) -> None:
    with proxy.client() as client, client.stream("GET", "/stream") as response:
        events = response.iter_raw()
        assert next(events) == b"data: first\n\n"
        assert not proxy.app.gate.is_set()
        proxy.app.gate.set()
        assert b"".join(events) == b"data: second\n\n"


@needs_nginx
def test_the_concurrent_requests_of_an_address_are_bounded(proxy: Guarded) -> None:
    with proxy.client() as client, ThreadPoolExecutor(ADDRESS_LIMIT) as pool:
        held = [pool.submit(client.get, "/hold") for _ in range(ADDRESS_LIMIT)]
        for _ in held:
            assert proxy.app.held.acquire(timeout=30)
        refused = client.get("/v1/models")
        proxy.app.gate.set()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert [each.result().status_code for each in held] == [200] * ADDRESS_LIMIT
        assert client.get("/v1/models").status_code == 200


@needs_nginx
def test_half_a_body_does_not_reach_the_service(proxy: Guarded) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
    with proxy.nginx.open() as connection, proxy.client() as client:
        connection.sendall(head)
        client.get("/v1/models")
        client.get("/v1/models")
    assert [each.url.path for each in proxy.app.requests] == ["/v1/models"] * 2


def test_a_header_has_ten_seconds_and_32_kib() -> None:
    (first,) = re.findall(r"client_header_buffer_size (\d+)k;", LIMITS)
    ((number, size),) = re.findall(r"large_client_header_buffers (\d+) (\d+)k;", LIMITS)
    assert int(first) + int(number) * int(size) <= 32
    assert "client_header_timeout 10s;" in LIMITS


def test_the_limits_are_those_of_the_service() -> None:
    assert f"client_max_body_size {ServeConfig().max_body_bytes};" in LIMITS
    assert f"proxy_read_timeout {load('serve.yaml')['http_options']['request_timeout_s']}s;" in LIMITS


def test_the_proxy_on_kubernetes_mounts_the_same_limits_and_the_ingress_leads_to_it() -> None:
    documents = list(yaml.safe_load_all((CONFIGS / "kuberay" / "gateway.yaml").read_text("utf-8")))
    kinds = {each["kind"]: each for each in documents}
    (container,) = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    (mounted,) = re.findall(r"include (\S+)/limits.conf;", nginx_process.on_kubernetes())
    assert mounted in {each["mountPath"] for each in container["volumeMounts"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    (path,) = kinds["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["name"] == kinds["Service"]["metadata"]["name"]
    assert kinds["Service"]["spec"]["selector"].items() <= kinds["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
