"""A service with API keys on Ray Serve: half-sent bodies keep nobody out, and a revoked key stops working without a restart."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from compass_ray.config import with_overrides
from compass_ray.serving import app
from compass_ray.serving.api.key_source import hash_key
from compass_ray.serving.ingress import KEYS_INTERVAL_S
from tests.ray import tiny_run

pytestmark = pytest.mark.slow
HELD = 300
"""Half-sent bodies: more than the service's slots, unfinished bodies and other requests together."""
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text(f"amina:{hash_key('one')}\njuma:{hash_key('two')}\n")
    return file


@pytest.fixture(scope="module")
def url(ray_cluster: None, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run, config = tiny_run.make(tmp_path_factory.mktemp("served"))
    settings = with_overrides(config, [f"serve.api_keys={keys}", "serve.max_concurrent_requests=64"])
    endpoint = app.start(run.uri, settings, port=0)
    yield endpoint.url
    app.stop(endpoint)


def _ask(url: str, key: str) -> httpx.Response:
    body = {"model": "base", "max_tokens": 1, "messages": [{"role": "user", "content": "Habari"}]}
    return httpx.post(f"{url}{CHAT}", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30)


def test_honest_requests_are_answered_while_a_client_holds_half_sent_bodies(url: str) -> None:
    address = httpx.URL(url)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer one\r\nContent-Type: application/json\r\n"
    with ExitStack() as held:
        for _ in range(HELD):
            connection = held.enter_context(socket.create_connection((address.host, address.port or 0), timeout=30))
            connection.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        assert [_ask(url, "two").status_code for _ in range(5)] == [200] * 5


def test_a_revoked_key_is_refused_within_two_reads_of_the_file(url: str, keys: Path) -> None:
    assert _ask(url, "one").status_code == 200
    keys.write_text(f"juma:{hash_key('two')}\nnew:{hash_key('three')}\n")
    deadline = time.monotonic() + 2 * KEYS_INTERVAL_S
    while _ask(url, "one").status_code != 401:
        assert time.monotonic() < deadline
        threading.Event().wait(0.2)
    assert [_ask(url, key).status_code for key in ("two", "three")] == [200, 200]
