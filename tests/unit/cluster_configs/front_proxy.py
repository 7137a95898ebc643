"""The shipped nginx configuration on 127.0.0.1, in front of an application that records what reaches it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from benchmarks.speed.nginx_process import HOST, FrontProxy, start_nginx
from tests.raw_http import exchange

_LIMIT_S = 30


@dataclass
class RecordingApp:
    """An application that records requests. ``/hold`` waits for the gate; ``/stream`` waits for it between two events."""

    requests: list[Request] = field(default_factory=list)
    held: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event = field(default_factory=threading.Event)

    def build(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])

    async def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        await request.body()
        if request.url.path == "/stream":
            headers = {"x-accel-buffering": "no"}
            return StreamingResponse(self._events(), media_type="text/event-stream", headers=headers)
        if request.url.path == "/hold":
            self.held.release()
            await self._wait()
        return Response("ok")

    async def _events(self) -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await self._wait()
        yield b"data: second\n\n"

    async def _wait(self) -> None:
        assert await asyncio.to_thread(self.gate.wait, _LIMIT_S)


@dataclass(frozen=True)
class Guarded:
    """An application behind nginx."""

    app: RecordingApp
    nginx: FrontProxy

    def client(self) -> httpx.Client:
        verify: Any = self.nginx.context or False
        return httpx.Client(base_url=self.nginx.url, headers={"host": HOST}, verify=verify, timeout=_LIMIT_S)

    def send_raw(self, request: bytes) -> bytes:
        """Send bytes and return all that comes back until the connection is closed."""
        with self.nginx.open() as connection:
            return exchange(connection, request)


@contextmanager
def guard(configuration: str, folder: Path) -> Iterator[Guarded]:
    """A recording application behind nginx with a shipped configuration."""
    app = RecordingApp()
    with _served(app) as port, start_nginx(configuration, folder, port) as nginx:
        yield Guarded(app, nginx)


@contextmanager
def _served(app: RecordingApp) -> Iterator[int]:
    """Serve an application in a thread, and yield its port."""
    server = uvicorn.Server(uvicorn.Config(app.build(), port=0, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            app.gate.set()
            server.should_exit = True
            thread.join(_LIMIT_S)
