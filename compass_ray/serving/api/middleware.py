"""ASGI middleware in order: request id and error envelope, API key, rate limit, body, concurrency limit.

Cheap checks come first. The body is read after key and rate were checked, and before the request takes a concurrency slot. It
runs outside of FastAPI's own layers, so every response has OpenAI's shape, including unexpected failures. Bodies and
disconnects: `body_reader`.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.rate_limits import ConcurrencyLimiter, RateLimiter
from compass_ray.serving.api.request_context import RequestContext, RequestCounter, context_from_scope
from compass_ray.serving.inference import errors
from compass_ray.serving.inference.client_hashes import network_of
from compass_ray.serving.inference.errors import ApiError
from compass_ray.serving.metrics.request_stats import RequestStatistics

REQUEST_ID_HEADER = "x-request-id"
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A request id that is safe in logs. It may come from a client."""
COMPLETION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths of completion requests."""
BODY_PATHS = COMPLETION_PATHS | {"/v1/feedback"}
"""Paths that accept a body."""
PUBLIC_PATHS = frozenset({"/healthz"})
"""Paths that need no key."""


def path_of(scope: Scope) -> str:
    """The path below the application's mount point."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_completion_request(scope: Scope) -> bool:
    """Whether this is a completion request."""
    return scope["method"] == "POST" and path_of(scope) in COMPLETION_PATHS


def has_body(scope: Scope) -> bool:
    """Whether the request's body is read."""
    return scope["method"] == "POST" and path_of(scope) in BODY_PATHS


def error_response(error: ApiError) -> JSONResponse:
    """The HTTP response of an error."""
    return JSONResponse(error.body.model_dump(), status_code=error.status, headers=error.headers)


class ErrorMiddleware:
    """Outermost: assigns the request id, counts the outcome, and turns exceptions into OpenAI's errors."""

    def __init__(self, app: ASGIApp, statistics: RequestStatistics, trust_request_id: bool = False) -> None:
        """Wrap the application; ``trust_request_id`` is as in `build_api`."""
        self.app = app
        self.statistics = statistics
        self.trust_request_id = trust_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = RequestContext(self.statistics, RequestCounter(self.statistics) if is_completion_request(scope) else None)
        header = Headers(scope=scope).get(REQUEST_ID_HEADER, "") if self.trust_request_id else ""
        if _VALID_REQUEST_ID.fullmatch(header):
            context.id = header
        sender = _ResponseSender(send, context, adds_request_id=not self.trust_request_id)
        try:
            if not scope["path"].isprintable():  # route patterns match a trailing line break, middleware paths do not
                raise errors.no_such_path()
            await self.app(context.attach_to(scope), receive, sender)
        except Exception as error:
            api_error = errors.to_api_error(error, context.id)
            context.record_refusal(api_error)
            if sender.started:
                raise
            await error_response(api_error)(scope, receive, sender)
        finally:
            context.record_end()


class _ResponseSender:
    """`Send` that adds the request id and records the status."""

    def __init__(self, send: Send, context: RequestContext, *, adds_request_id: bool) -> None:
        self.send = send
        self.context = context
        self.adds_request_id = adds_request_id
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
    """Checks API keys, if any are configured."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        """Wrap the application."""
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it with 401."""
        if scope["type"] == "http" and self.keys.required and path_of(scope) not in PUBLIC_PATHS:
            headers = Headers(scope=scope)
            key = self.keys.find_id(headers.get("authorization"))
            if key is None:
                raise errors.invalid_api_key(person="text/html" in headers.get("accept", ""))
            context_from_scope(scope).key = key
        await self.app(scope, receive, send)


class RateLimitMiddleware:
    """Limits the request rate of each key, or of each address without keys. Counts only requests with a body."""

    def __init__(self, app: ASGIApp, rate: RateLimiter) -> None:
        """Wrap the application."""
        self.app = app
        self.rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it with 429."""
        if scope["type"] == "http" and has_body(scope):
            client = scope.get("client")
            self.rate.check(context_from_scope(scope).key or network_of(client[0] if client else "", ipv4_bits=32))
        await self.app(scope, receive, send)


class ConcurrencyMiddleware:
    """Holds a concurrency slot for each completion request until its response is sent."""

    def __init__(self, app: ASGIApp, admission: ConcurrencyLimiter) -> None:
        """Wrap the application."""
        self.app = app
        self.admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it with 503."""
        if scope["type"] != "http" or not is_completion_request(scope):
            await self.app(scope, receive, send)
            return
        with self.admission.slot():
            await self.app(scope, receive, send)
