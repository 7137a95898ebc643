"""A request's body, read whole within bounds, and its client, listened for until the reply is sent.

Key property: one reader of the connection. It gives the body to the route and, when the client goes away, cancels the route, so
that its place in the engine is free at once, whether the reply streams or not. COMPASS has no section on it.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compass_ray.serving.api.middleware import has_body
from compass_ray.serving.inference import errors

_MAX_LENGTH_DIGITS = 18


class BodyReaderMiddleware:
    """Reads bodies and listens for clients; requests without a body pass untouched."""

    def __init__(self, app: ASGIApp, *, most: int, seconds: float) -> None:
        """Read at most ``most`` bytes within ``seconds``."""
        self.app = app
        self.most = most
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or refuse it with 408, 413 or 415."""
        if scope["type"] != "http" or not has_body(scope):
            await self.app(scope, receive, send)
            return
        _check_headers(Headers(scope=scope), self.most)
        try:
            async with asyncio.timeout(self.seconds):
                body = await _read_body(receive, self.most)
        except TimeoutError:
            raise errors.body_timeout() from None
        except ClientDisconnect:
            return
        await _DisconnectListener(self.app, body, receive, send).run(scope)


class _DisconnectListener:
    """One request whose client is listened for."""

    def __init__(self, app: ASGIApp, body: bytes, receive: Receive, send: Send) -> None:
        self.app = app
        self.receive_rest = receive
        self.send_on = send
        self.body: bytes | None = body
        self.sent = False
        self.disconnected = asyncio.Event()

    async def run(self, scope: Scope) -> None:
        """Run the application until it is done or the client has gone."""
        work = asyncio.ensure_future(self.app(scope, self._receive, self._send))
        listener = asyncio.ensure_future(self._listen())
        try:
            await asyncio.wait({work, listener}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self.disconnected.is_set() and not self.sent:
                work.cancel()
            await asyncio.wait({work})
        finally:  # cancelled itself, as Serve does
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
            self.sent = True  # some servers say that the client has gone once all is sent
        await self.send_on(message)


def _check_headers(headers: Headers, most: int) -> None:
    length = headers.get("content-length", "0")
    if length.isdecimal() and (len(length) > _MAX_LENGTH_DIGITS or int(length) > most):
        raise errors.body_too_large(most)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise errors.unsupported_media_type(kind)


async def _next_message(receive: Receive) -> Message:
    """The client's next message; a server that fails to give it has lost the client, as Ray Serve's says by an error."""
    try:
        return await receive()
    except Exception:
        return {"type": "http.disconnect"}


async def _read_body(receive: Receive, most: int) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await _next_message(receive)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > most:
            raise errors.body_too_large(most)
        more = message.get("more_body", False)
    return bytes(body)
