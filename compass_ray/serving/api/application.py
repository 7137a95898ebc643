"""The endpoint's application: routes inside their guards, over an `AnswerService`.

Key property: every answer is OpenAI's shape, errors too. Where keys are needed, everything needs one but ``/healthz``: the page,
the status and the metrics tell what is served and asked. A browser is asked for the key as a password. COMPASS, section 3.2.5.
FastAPI only: it runs under Serve and in a bare test client alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from compass_ray.serving.api import admin_routes, openai_routes, openapi
from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.body_reader import BodyReaderMiddleware
from compass_ray.serving.api.exception_handlers import register_exception_handlers
from compass_ray.serving.api.middleware import AuthMiddleware, ConcurrencyMiddleware, ErrorMiddleware, RateLimitMiddleware
from compass_ray.serving.api.rate_limits import ConcurrencyLimiter, RateLimiter, RequestLimits
from compass_ray.serving.inference.service import InferenceService

StatusSource = Callable[[], Awaitable[dict[str, Any]]]


async def _no_drain() -> None:
    """What there is to finish where nothing is under way."""


def build_api(
    service: InferenceService,
    status: StatusSource,
    drain: Callable[[], Awaitable[None]] = _no_drain,
    keys: ApiKeys | None = None,
    limits: RequestLimits | None = None,
    *,
    numbered: bool = False,
) -> FastAPI:
    """The application over a service.

    Args:
        service: answers the enquiries.
        status: gives what ``/v1/compass/status`` shows.
        drain: called on an orderly shutdown, after the last reply.
        keys: who may ask; anybody by default.
        limits: what is taken at once, in a minute, and of one request.
        numbered: whether a proxy gives requests their number, in ``x-request-id``, and gives it back with the reply.

    Returns:
        The application; ``state.admission.close()`` makes it refuse what is new while replies under way finish.
    """
    known, bounds = keys or ApiKeys(), limits or RequestLimits()
    admission = ConcurrencyLimiter(bounds.max_waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        admission.open()
        yield
        admission.close()
        await admission.wait_until_idle(bounds.request_seconds)
        await service.shadows.close()
        await drain()

    api = FastAPI(
        title="compass-ray",
        lifespan=lifespan,
        docs_url=None,  # the page loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(ErrorMiddleware, statistics=service.statistics, numbered=numbered),
            Middleware(AuthMiddleware, keys=known),
            Middleware(RateLimitMiddleware, rate=RateLimiter(bounds.requests_per_minute)),
            Middleware(ConcurrencyMiddleware, admission=admission),
            Middleware(BodyReaderMiddleware, most=bounds.max_body_bytes, seconds=bounds.request_seconds),
        ],
    )
    api.state.admission = admission
    api.include_router(openai_routes.build_router(service))
    api.include_router(admin_routes.build_router(service, status, admission))
    register_exception_handlers(api)
    api.openapi = lambda: openapi.build_schema(api, keys=known.required, rate=bounds.requests_per_minute is not None)  # type: ignore[method-assign]
    return api
