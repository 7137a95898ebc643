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

from compass_ray.serving.answering.service import AnswerService
from compass_ray.serving.api import completion_routes, declared, operator_routes
from compass_ray.serving.api.bodies import Bodies
from compass_ray.serving.api.guards import Envelope, KeyCheck, PlaceCheck, RateCheck
from compass_ray.serving.api.keys import Keys
from compass_ray.serving.api.limits import Admission, Limits, Rate
from compass_ray.serving.api.refusing import answer_errors

Status = Callable[[], Awaitable[dict[str, Any]]]


async def _nothing() -> None:
    """What there is to finish where nothing is under way."""


def build_api(
    service: AnswerService,
    status: Status,
    drain: Callable[[], Awaitable[None]] = _nothing,
    keys: Keys | None = None,
    limits: Limits | None = None,
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
    known, bounds = keys or Keys(), limits or Limits()
    admission = Admission(bounds.max_waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        admission.open()
        yield
        admission.close()
        await admission.emptied(bounds.request_seconds)
        await service.shadows.close()
        await drain()

    api = FastAPI(
        title="compass-ray",
        lifespan=lifespan,
        docs_url=None,  # the page loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Envelope, statistics=service.statistics, numbered=numbered),
            Middleware(KeyCheck, keys=known),
            Middleware(RateCheck, rate=Rate(bounds.requests_per_minute)),
            Middleware(PlaceCheck, admission=admission),
            Middleware(Bodies, most=bounds.max_body_bytes, seconds=bounds.request_seconds),
        ],
    )
    api.state.admission = admission
    api.include_router(completion_routes.router(service))
    api.include_router(operator_routes.router(service, status, admission))
    answer_errors(api)
    api.openapi = lambda: declared.describe(api, keys=known.needed, rate=bounds.requests_per_minute is not None)  # type: ignore[method-assign]
    return api
