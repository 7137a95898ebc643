"""The endpoint on loopback, in a thread, with a status that the test provides."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn

from compass_ray.serving.api.auth import ApiKeys
from tests.unit.serving.api.endpoint import Endpoint


class Site:
    """The application over HTTP. Its status, and `broken`, can be changed while it runs."""

    def __init__(self, status: dict[str, Any], *, keys: ApiKeys | None = None) -> None:
        self.broken = False
        self.polls = 0
        self.endpoint = Endpoint(keys=keys)
        self.endpoint.state = status
        inner = self.endpoint.api

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/v1/compass/status":
                self.polls += 1
                if self.broken:
                    await send({"type": "http.response.start", "status": 503, "headers": []})
                    await send({"type": "http.response.body", "body": b""})
                    return
            await inner(scope, receive, send)

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop answering."""
        self.server.should_exit = True
        self.thread.join(10)
        self.socket.close()
