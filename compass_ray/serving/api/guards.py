"""What a request passes before its route: a number and an envelope for errors, the key, the rate, a place, and its body.

Key property: what is cheap to refuse is refused first, and nothing is read of a body before the key, the rate and the place are
settled. Plain ASGI, outside FastAPI's own layers, so that every answer has OpenAI's shape, those to unforeseen failures too.
COMPASS has no section on it. Not here: listening for the client, which is `bodies`.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compass_ray.serving.answering import failures
from compass_ray.serving.answering.failures import ApiError
from compass_ray.serving.api.exchange import Exchange, exchange
from compass_ray.serving.api.keys import Keys
from compass_ray.serving.api.limits import Admission, Rate, network
from compass_ray.serving.api.tally import Tally
from compass_ray.serving.numbers.statistics import Statistics

REQUEST_ID = "x-request-id"
_NUMBER = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A request's number as it may stand in a log; a client may have written it."""
ANSWERING = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths that ask for a reply."""
WRITING = ANSWERING | {"/v1/feedback"}
"""Paths that take a body."""
OPEN = frozenset({"/healthz"})
"""Paths that need no key."""


def path_of(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def asks(scope: Scope) -> bool:
    """Whether a request asks for a reply."""
    return scope["method"] == "POST" and path_of(scope) in ANSWERING


def writes(scope: Scope) -> bool:
    """Whether a request has a body that is read."""
    return scope["method"] == "POST" and path_of(scope) in WRITING


def error_response(error: ApiError) -> JSONResponse:
    """An error as it is sent."""
    return JSONResponse(error.body.model_dump(), status_code=error.status, headers=error.headers)


class Envelope:
    """Outermost: numbers the request, counts how it ends, and turns what is raised into OpenAI's error."""

    def __init__(self, app: ASGIApp, statistics: Statistics, numbered: bool = False) -> None:
        """Wrap the application; ``numbered`` is as in `build_api`."""
        self.app = app
        self.statistics = statistics
        self.numbered = numbered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known = Exchange(self.statistics, Tally(self.statistics) if asks(scope) else None)
        given = Headers(scope=scope).get(REQUEST_ID, "") if self.numbered else ""
        if _NUMBER.fullmatch(given):
            known.id = given
        outgoing = _Outgoing(send, known, told=not self.numbered)
        try:
            if not scope["path"].isprintable():  # a route's pattern lets a line break pass at its end, which no guard would know
                raise failures.no_such_path()
            await self.app(known.into(scope), receive, outgoing)
        except Exception as error:
            refusal = failures.told(error, known.id)
            known.refused(refusal)
            if outgoing.started:
                raise
            await error_response(refusal)(scope, receive, outgoing)
        finally:
            known.ended()


class _Outgoing:
    """`Send` that adds the request's number and notes its status."""

    def __init__(self, send: Send, known: Exchange, *, told: bool) -> None:
        self.send = send
        self.known = known
        self.told = told
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self.told:
                MutableHeaders(scope=message)[REQUEST_ID] = self.known.id
            if self.known.tally and message["status"] >= 400:
                self.known.tally.refused(message["status"])
        await self.send(message)


class KeyCheck:
    """Lets pass who has a key, where keys are needed."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        """Wrap the application."""
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 401."""
        if scope["type"] == "http" and self.keys.needed and path_of(scope) not in OPEN:
            headers = Headers(scope=scope)
            owner = self.keys.owner(headers.get("authorization"))
            if owner is None:
                raise failures.no_key(person="text/html" in headers.get("accept", ""))
            exchange(scope).key = owner.id
        await self.app(scope, receive, send)


class RateCheck:
    """Counts the requests of each key, or without keys of each address; only those that have a body."""

    def __init__(self, app: ASGIApp, rate: Rate) -> None:
        """Wrap the application."""
        self.app = app
        self.rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 429."""
        if scope["type"] == "http" and writes(scope):
            client = scope.get("client")
            self.rate.count(exchange(scope).key or network(client[0] if client else ""))
        await self.app(scope, receive, send)


class PlaceCheck:
    """Gives each request that asks for a reply a place, until its reply is sent."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        """Wrap the application."""
        self.app = app
        self.admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 503."""
        if scope["type"] != "http" or not asks(scope):
            await self.app(scope, receive, send)
            return
        with self.admission.place():
            await self.app(scope, receive, send)
