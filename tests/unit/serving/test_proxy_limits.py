"""Serve's own proxy, as uvicorn runs it: long headers are refused, and headers that it obeys are dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS

from compass_ray import ray_session
from compass_ray.serving.proxy_limits import OBEYED_HEADERS, TRUSTED_PROXIES_VARIABLE, limit_proxy


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    """An application behind what Serve builds from the callback."""
    monkeypatch.setenv(TRUSTED_PROXIES_VARIABLE, "")
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(list(Request(scope).headers.keys()))(scope, receive, send)

    wrapped: ASGIApp = app
    for middleware in limit_proxy():
        wrapped = middleware.cls(wrapped, *middleware.args, **middleware.kwargs)
    return wrapped


@asynccontextmanager
async def _served(app: ASGIApp) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="critical"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize(("trusted", "seen"), [(None, "127.0.0.1"), ("127.0.0.1", "192.0.2.7"), ("192.0.2.1", "127.0.0.1")])
def test_a_forwarded_address_is_taken_only_from_a_proxy_that_is_set(
    monkeypatch: pytest.MonkeyPatch, trusted: str | None, seen: str
) -> None:
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    monkeypatch.setenv(TRUSTED_PROXIES_VARIABLE, trusted or "")
    if trusted is None:
        monkeypatch.delenv(TRUSTED_PROXIES_VARIABLE)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(scope["client"][0])(scope, receive, send)

    async def scenario() -> str:
        async with _served(app) as port, httpx.AsyncClient() as client:
            answer: str = (await client.get(f"http://127.0.0.1:{port}/", headers={"X-Forwarded-For": "192.0.2.7"})).json()
            return answer

    limit_proxy()
    assert asyncio.run(scenario()) == seen


def test_a_long_header_is_refused_and_other_clients_are_served(proxy: ASGIApp) -> None:
    async def scenario() -> bytes:
        async with _served(proxy) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 1_000_000)
            answer = await reader.readline()
            writer.close()
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
            return answer

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 400")


def test_headers_that_serve_obeys_do_not_reach_it(proxy: ASGIApp) -> None:
    async def scenario() -> list[str]:
        async with _served(proxy) as port, httpx.AsyncClient() as client:
            headers = {name.decode().title(): "1" for name in OBEYED_HEADERS}
            seen: list[str] = (await client.get(f"http://127.0.0.1:{port}/", headers=headers | {"x-other": "1"})).json()
            return seen

    seen = asyncio.run(scenario())
    assert "x-other" in seen
    assert not {name.encode() for name in seen} & OBEYED_HEADERS


def test_the_dropped_headers_are_those_of_the_installed_serve() -> None:
    from ray.serve._private import constants

    obeyed = {constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER, constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER}
    assert {name.encode() for name in obeyed} == OBEYED_HEADERS


def test_serve_is_told_to_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from ray._common.utils import import_attr

    name = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    monkeypatch.delenv(name, raising=False)
    ray_session.prepare_environment()
    assert import_attr(os.environ[name]) is limit_proxy
