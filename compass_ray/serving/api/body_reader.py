"""Reads request bodies within limits, and watches for client disconnects until the response is sent.

It is the only reader of the connection. It passes the body to the route. If the client disconnects, it cancels the route, so
that the request's slots are freed immediately, for complete and streamed responses. A request takes its concurrency slot when
its body is complete, so clients that send half a body hold none.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compass_ray.serving.api.middleware import has_body
from compass_ray.serving.api.rate_limits import RequestLimits
from compass_ray.serving.api.request_context import context_from_scope
from compass_ray.serving.inference import errors

_MAX_LENGTH_DIGITS = 18


class BodyReaderMiddleware:
    """Reads bodies and detects disconnects. Requests without a body pass unchanged."""

    def __init__(self, app: ASGIApp, *, limits: RequestLimits) -> None:
        """Bound size and time of a body, and the number of bodies that are read at once."""
        self.app = app
        self.max_bytes = limits.max_body_bytes
        self.unfinished = UnfinishedBodies(limits.max_unfinished_bodies, limits.body_timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request with its body, or refuse it with 408, 413 or 415."""
        if scope["type"] != "http" or not has_body(scope):
            await self.app(scope, receive, send)
            return
        _check_headers(Headers(scope=scope), self.max_bytes)
        try:
            async with self.unfinished.deadline(context_from_scope(scope).client or ""):
                body = await _read_body(receive, self.max_bytes)
        except TimeoutError:
            raise errors.body_timeout() from None
        except ClientDisconnect:
            return
        await _DisconnectListener(self.app, body, receive, send).run(scope)


class UnfinishedBodies:
    """The bodies that are being read, oldest first.

    A body above the limit ends the oldest body of the client with most bodies. So a client that holds half-sent bodies keeps
    nobody else out, and ends no slow upload of another client. If all have equally many, the oldest body of all ends.
    """

    def __init__(self, limit: int, timeout_s: float) -> None:
        """Allow ``limit`` bodies at once, and ``timeout_s`` seconds for each."""
        self.limit = limit
        self.timeout_s = timeout_s
        self._clients: dict[asyncio.Timeout, str] = {}

    @asynccontextmanager
    async def deadline(self, client: str) -> AsyncIterator[None]:
        """Read one body of a client inside.

        Raises:
            TimeoutError: the body took too long, or another one came above the limit and ended it.
        """
        if len(self._clients) >= self.limit:
            self._end_oldest(client)
        async with asyncio.timeout(self.timeout_s) as timeout:
            self._clients[timeout] = client
            try:
                yield
            finally:
                self._clients.pop(timeout, None)

    def _end_oldest(self, newcomer: str) -> None:
        """End the oldest body of the client that has most with the body that comes."""
        counts = Counter([*self._clients.values(), newcomer])
        oldest = max(self._clients, key=lambda timeout: counts[self._clients[timeout]])  # the first of equal ones
        del self._clients[oldest]
        if not oldest.expired():
            oldest.reschedule(asyncio.get_running_loop().time())


class _DisconnectListener:
    """One request, monitored for a client disconnect."""

    def __init__(self, app: ASGIApp, body: bytes, receive: Receive, send: Send) -> None:
        self.app = app
        self.receive_rest = receive
        self.send_on = send
        self.body: bytes | None = body
        self.sent = False
        self.disconnected = asyncio.Event()

    async def run(self, scope: Scope) -> None:
        """Run the application until it finishes or the client disconnects."""
        work = asyncio.ensure_future(self.app(scope, self._receive, self._send))
        listener = asyncio.ensure_future(self._listen())
        try:
            await asyncio.wait({work, listener}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self.disconnected.is_set() and not self.sent:
                work.cancel()
            await asyncio.wait({work})
        finally:  # also when Serve cancels this task
            work.cancel()
            listener.cancel()
            await asyncio.gather(work, listener, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _listen(self) -> None:
        while (await _next_message(self.receive_rest))["type"] != "http.disconnect":
            pass
        self.disconnected.set()

    async def _receive(self) -> Message:
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.sent = True  # some servers report a disconnect after the last message
        await self.send_on(message)


def _check_headers(headers: Headers, max_bytes: int) -> None:
    length = headers.get("content-length", "0")
    if length.isdecimal() and (len(length) > _MAX_LENGTH_DIGITS or int(length) > max_bytes):
        raise errors.body_too_large(max_bytes)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise errors.unsupported_media_type(kind)


async def _next_message(receive: Receive) -> Message:
    """The client's next message. An error counts as a disconnect, because Ray Serve raises one."""
    try:
        return await receive()
    except Exception:
        return {"type": "http.disconnect"}


async def _read_body(receive: Receive, max_bytes: int) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await _next_message(receive)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise errors.body_too_large(max_bytes)
        more = message.get("more_body", False)
    return bytes(body)
