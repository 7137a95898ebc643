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

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.rate_limits import ConcurrencyLimiter, RateLimiter, client_network
from compass_ray.serving.api.request_context import RequestContext, RequestCounter, context_from_scope
from compass_ray.serving.inference import errors
from compass_ray.serving.inference.errors import ApiError
from compass_ray.serving.metrics.request_stats import RequestStatistics

REQUEST_ID_HEADER = "x-request-id"
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A request's number as it may stand in a log; a client may have written it."""
COMPLETION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths that ask for a reply."""
BODY_PATHS = COMPLETION_PATHS | {"/v1/feedback"}
"""Paths that take a body."""
PUBLIC_PATHS = frozenset({"/healthz"})
"""Paths that need no key."""


def path_of(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_completion_request(scope: Scope) -> bool:
    """Whether a request asks for a reply."""
    return scope["method"] == "POST" and path_of(scope) in COMPLETION_PATHS


def has_body(scope: Scope) -> bool:
    """Whether a request has a body that is read."""
    return scope["method"] == "POST" and path_of(scope) in BODY_PATHS


def error_response(error: ApiError) -> JSONResponse:
    """An error as it is sent."""
    return JSONResponse(error.body.model_dump(), status_code=error.status, headers=error.headers)


class ErrorMiddleware:
    """Outermost: numbers the request, counts how it ends, and turns what is raised into OpenAI's error."""

    def __init__(self, app: ASGIApp, statistics: RequestStatistics, numbered: bool = False) -> None:
        """Wrap the application; ``numbered`` is as in `build_api`."""
        self.app = app
        self.statistics = statistics
        self.numbered = numbered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known = RequestContext(self.statistics, RequestCounter(self.statistics) if is_completion_request(scope) else None)
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "") if self.numbered else ""
        if _VALID_REQUEST_ID.fullmatch(given):
            known.id = given
        outgoing = _ResponseSender(send, known, told=not self.numbered)
        try:
            if not scope["path"].isprintable():  # a route's pattern lets a line break pass at its end, which no guard would know
                raise errors.no_such_path()
            await self.app(known.attach_to(scope), receive, outgoing)
        except Exception as error:
            refusal = errors.to_api_error(error, known.id)
            known.record_refusal(refusal)
            if outgoing.started:
                raise
            await error_response(refusal)(scope, receive, outgoing)
        finally:
            known.record_end()


class _ResponseSender:
    """`Send` that adds the request's number and notes its status."""

    def __init__(self, send: Send, known: RequestContext, *, told: bool) -> None:
        self.send = send
        self.context = known
        self.adds_request_id = told
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self.adds_request_id:
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = self.context.id
            if self.context.counter and message["status"] >= 400:
                self.context.counter.record_refusal(message["status"])
        await self.send(message)


class AuthMiddleware:
    """Lets pass who has a key, where keys are needed."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        """Wrap the application."""
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 401."""
        if scope["type"] == "http" and self.keys.required and path_of(scope) not in PUBLIC_PATHS:
            headers = Headers(scope=scope)
            owner = self.keys.find_owner(headers.get("authorization"))
            if owner is None:
                raise errors.invalid_api_key(person="text/html" in headers.get("accept", ""))
            context_from_scope(scope).key = owner.id
        await self.app(scope, receive, send)


class RateLimitMiddleware:
    """Counts the requests of each key, or without keys of each address; only those that have a body."""

    def __init__(self, app: ASGIApp, rate: RateLimiter) -> None:
        """Wrap the application."""
        self.app = app
        self.rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 429."""
        if scope["type"] == "http" and has_body(scope):
            client = scope.get("client")
            self.rate.check(context_from_scope(scope).key or client_network(client[0] if client else ""))
        await self.app(scope, receive, send)


class ConcurrencyMiddleware:
    """Gives each request that asks for a reply a place, until its reply is sent."""

    def __init__(self, app: ASGIApp, admission: ConcurrencyLimiter) -> None:
        """Wrap the application."""
        self.app = app
        self.admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 503."""
        if scope["type"] != "http" or not is_completion_request(scope):
            await self.app(scope, receive, send)
            return
        with self.admission.slot():
            await self.app(scope, receive, send)
