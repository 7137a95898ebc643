"""An endpoint on a loopback port, in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import openai
import uvicorn

from tests.unit.serving.api.endpoint import Endpoint


@dataclass
class Running:
    """An endpoint behind a running HTTP server."""

    endpoint: Endpoint
    url: str
    loop: asyncio.AbstractEventLoop

    def openai(self, key: str = "sesame", *, strict: bool = True) -> openai.OpenAI:
        """With ``strict``, the client validates every response and chunk against OpenAI's types."""
        url = f"{self.url}/v1"
        return openai.OpenAI(base_url=url, api_key=key, max_retries=0, _strict_response_validation=strict)


@contextmanager
def run_endpoint(endpoint: Endpoint) -> Iterator[Running]:
    """Serve an endpoint while the block is open."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    started, loops = threading.Event(), []

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            loops.append(asyncio.get_running_loop())
            started.set()

    server = Server(uvicorn.Config(endpoint.api, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    assert started.wait(10)
    try:
        yield Running(endpoint, f"http://127.0.0.1:{listener.getsockname()[1]}", loops[0])
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
