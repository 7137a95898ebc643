"""The last requests of an ingress, for the lines that `compass-ray serve` prints. No text of a request or response is kept.

Requests of the dashboard and of monitoring systems are left out while they succeed: they repeat every few seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CAPACITY = 1000
"""Requests in memory. Who reads more slowly misses the oldest."""
_ROUTE_HEADER, _ID_HEADER = "x-compass-route", "x-request-id"
_MAX_PATH = 100
_QUIET_PATHS = frozenset({"/v1/compass/status"})


@dataclass(frozen=True)
class AccessRecord:
    """One ended request: number from 1, time of its end in Unix seconds, duration in seconds, and what was answered."""

    number: int
    time: float
    method: str
    path: str
    status: int
    """0 if the client disconnected before a response."""
    seconds: float
    route: str
    """The header ``x-compass-route``; empty without one."""
    request_id: str


class AccessLog:
    """The last `CAPACITY` requests of one ingress replica, oldest first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` returns Unix seconds."""
        self.clock = clock
        self.name = uuid4().hex
        """Tells the numbers of this replica from those of another one, or of one before a restart."""
        self._records: deque[AccessRecord] = deque(maxlen=CAPACITY)
        self._numbers = count(1)

    def record(self, method: str, path: str, status: int, started: float, route: str, request_id: str) -> None:
        """Append a request that ends now, unless it is a quiet one."""
        if status >= 400 or not status or (path.startswith("/v1/") and path not in _QUIET_PATHS):
            now, shown = self.clock(), path[:_MAX_PATH]
            self._records.append(AccessRecord(next(self._numbers), now, method, shown, status, now - started, route, request_id))

    def since(self, number: int) -> list[AccessRecord]:
        """The requests after a number."""
        return [record for record in self._records if record.number > number]


class AccessLogMiddleware:
    """Outermost: records each request when its response has been sent."""

    def __init__(self, app: ASGIApp, log: AccessLog) -> None:
        """Wrap the application."""
        self.app = app
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, headers = self.log.clock(), 0, Headers(raw=[])

        async def watched_send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], Headers(raw=message.get("headers", []))
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            request_id = headers.get(_ID_HEADER) or Headers(scope=scope).get(_ID_HEADER, "")
            self.log.record(scope["method"], path, status, started, headers.get(_ROUTE_HEADER, ""), request_id[:_MAX_PATH])
