"""The endpoint's HTTP on Ray Serve before a server that never comes to an end: clients that go away, and time that runs out."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from compass_ray.registry import Catalogue
from compass_ray.serving.inference.backend import GenerationOutput, GenerationRequest, OutputDelta
from tests.ports import choose_free_port

NAME, PATH = "hang-up", "/v1/chat/completions"


class EndlessServer:
    """Begins replies, ends none, and counts those that were given up."""

    def __init__(self) -> None:
        self.begun = self.given_up = 0

    async def answer(self, order: GenerationRequest) -> GenerationOutput:
        await self._hold()
        raise AssertionError("it never ends")

    async def stream(self, order: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        yield OutputDelta("jibu")
        await self._hold()

    async def counts(self) -> tuple[int, int]:
        return self.begun, self.given_up

    async def catalogue(self) -> Catalogue:
        return Catalogue({}, {})

    async def _hold(self) -> None:
        self.begun += 1
        try:
            await asyncio.sleep(120)
        except asyncio.CancelledError:
            self.given_up += 1
            raise


class SmallIngress:
    """The API over the server's handle, with nothing to identify and nobody to tell."""

    def __init__(self, server: DeploymentHandle[Any], seconds: float) -> None:
        self.server = server
        self.seconds = seconds

    def __serve_build_asgi_app__(self) -> FastAPI:
        from compass_ray.config import IdentifierConfig
        from compass_ray.monitoring.forwarder import TrafficForwarder
        from compass_ray.serving.api.application import build_api
        from compass_ray.serving.api.rate_limits import RequestLimits
        from compass_ray.serving.engine_client import EngineClient
        from compass_ray.serving.inference.service import InferenceService
        from compass_ray.serving.metrics.request_stats import RequestStatistics
        from compass_ray.serving.routing.conversation import ConversationMemory
        from compass_ray.serving.routing.router import Router

        async def nobody(_: list[Any]) -> None: ...

        async def status() -> dict[str, Any]:
            return self.service.statistics.summary()

        router = Router(None, languages=(), config=IdentifierConfig(), memory=ConversationMemory(time.monotonic))  # type: ignore[arg-type]
        self.service = InferenceService(
            router,
            EngineClient(self.server),
            TrafficForwarder(nobody, nobody),
            RequestStatistics(time.time),
            max_tokens=16,
            timeout_s=self.seconds,
            clock=time.time,
        )
        return build_api(self.service, status, limits=RequestLimits(request_timeout_s=self.seconds))


def _start(seconds: float) -> tuple[str, int]:
    host, port = "127.0.0.1", choose_free_port()
    serve.start(http_options=HTTPOptions(host=host, port=port))
    cpus = {"num_cpus": 0.1}
    server = serve.deployment(name="server", max_ongoing_requests=20, ray_actor_options=cpus)(EndlessServer).bind()
    ingress = serve.deployment(name="ingress", max_ongoing_requests=20, ray_actor_options=cpus)(serve.ingress()(SmallIngress))
    serve.run(ingress.bind(server, seconds), name=NAME, route_prefix="/")
    return host, port


@pytest.fixture(scope="module")
def address(ray_cluster: None) -> Iterator[tuple[str, int]]:
    yield _start(seconds=3.0)
    serve.shutdown()


def _counts() -> tuple[int, int]:
    counts: tuple[int, int] = serve.get_deployment_handle("server", NAME).counts.remote().result()
    return counts


def _until(counts: tuple[int, int], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while _counts() != counts:
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.05)
    return True


def _body(stream: bool) -> bytes:
    return json.dumps({"model": "base", "stream": stream, "messages": [{"role": "user", "content": "habari"}]}).encode()


def _read_until(connection: socket.socket, text: bytes) -> None:
    """Head and first chunk may arrive apart; a connection that ends or stays silent for its timeout fails."""
    received = b""
    while text not in received:
        part = connection.recv(65536)
        assert part, received
        received += part


@pytest.mark.parametrize("stream", [False, True])
def test_when_a_client_hangs_up_its_reply_is_given_up(address: tuple[str, int], stream: bool) -> None:
    begun, given_up = _counts()
    body = _body(stream)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(head.encode() + body)
        assert _until((begun + 1, given_up), 6.0)
        if stream:
            _read_until(connection, b"jibu")
    assert _until((begun + 1, given_up + 1), 4.0)
    status = httpx.get(f"http://{address[0]}:{address[1]}/v1/compass/status").json()
    assert status["waiting"] == 0


def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_no_failure(address: tuple[str, int]) -> None:
    url = f"http://{address[0]}:{address[1]}/v1/compass/status"
    before = httpx.get(url).json()
    with socket.create_connection(address, timeout=10) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        assert _found(url, "waiting", 1)
    assert _found(url, "cancelled", before["cancelled"] + 1)
    after = httpx.get(url).json()
    assert (after["failed"], after["waiting"]) == (before["failed"], 0)


def _found(url: str, name: str, value: int) -> bool:
    end = time.monotonic() + 10.0
    while httpx.get(url).json()[name] != value:
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.05)
    return True


@pytest.mark.parametrize("stream", [False, True])
def test_when_a_reply_takes_too_long_it_is_given_up_and_the_client_told(address: tuple[str, int], stream: bool) -> None:
    begun, given_up = _counts()
    url = f"http://{address[0]}:{address[1]}{PATH}"
    response = httpx.post(url, content=_body(stream), headers={"content-type": "application/json"}, timeout=30)
    assert response.status_code == (200 if stream else 504)
    assert '"code":"timeout"' in response.text
    assert _until((begun + 1, given_up + 1), 4.0)
