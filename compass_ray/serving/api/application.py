"""The API application: middleware and routes over an `InferenceService`.

Every response has OpenAI's shape, errors too. If API keys are configured, every path but ``/healthz`` needs one, because the
page, the status and the metrics reveal what is served. Browsers prompt for the key as a password. COMPASS, section 3.2.5.
Uses FastAPI only, so it runs under Serve and in a plain test client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from compass_ray.serving.api import admin_routes, openai_routes, openapi
from compass_ray.serving.api.access_log import AccessLog, AccessLogMiddleware
from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.body_reader import BodyReaderMiddleware
from compass_ray.serving.api.client_middleware import ClientMiddleware
from compass_ray.serving.api.exception_handlers import register_exception_handlers
from compass_ray.serving.api.host_check import HostMiddleware
from compass_ray.serving.api.middleware import AuthMiddleware, ConcurrencyMiddleware, ErrorMiddleware, RateLimitMiddleware
from compass_ray.serving.api.rate_limits import ConcurrencyLimiter, RateLimiter, RequestLimits
from compass_ray.serving.inference.service import InferenceService

StatusSource = Callable[[], Awaitable[dict[str, Any]]]


async def _no_drain() -> None:
    """The default ``drain``: nothing to finish."""


def build_api(
    service: InferenceService,
    status: StatusSource,
    drain: Callable[[], Awaitable[None]] = _no_drain,
    keys: ApiKeys | None = None,
    hosts: Sequence[str] | None = None,
    limits: RequestLimits | None = None,
    access_log: AccessLog | None = None,
    *,
    trust_request_id: bool = False,
    report: admin_routes.ReportSource = admin_routes.no_report,
    run_id: str = "",
) -> FastAPI:
    """The application of a service.

    Args:
        service: answers the requests.
        status: returns the content of ``/v1/compass/status``.
        drain: called on an orderly shutdown, after the last response.
        keys: accepted API keys. By default no key is needed.
        hosts: accepted names in the ``Host`` header. By default all.
        limits: limits on concurrency, rate, body size and time.
        access_log: records the requests.
        trust_request_id: whether a proxy sets ``x-request-id`` on requests and returns it with responses.
        report: returns the content of ``/report``. By default there is none.
        run_id: `RunDir.public_id` of the served run.

    Returns:
        The application. ``state.admission.close()`` makes it refuse new requests while active ones finish.
    """
    accepted, bounds = keys or ApiKeys(), limits or RequestLimits()
    admission = ConcurrencyLimiter(bounds.max_concurrent_requests)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        admission.open()
        yield
        admission.close()
        await admission.wait_until_idle(bounds.request_timeout_s)
        await service.shadows.close()
        await drain()

    api = FastAPI(
        title="compass-ray",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts from another host; `admin_routes` has one that does not
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(AccessLogMiddleware, log=access_log or AccessLog(service.clock)),
            Middleware(ErrorMiddleware, statistics=service.statistics, trust_request_id=trust_request_id),
            Middleware(HostMiddleware, hosts=hosts),
            Middleware(AuthMiddleware, keys=accepted),
            Middleware(ClientMiddleware, hashes=service.hashes),
            Middleware(RateLimitMiddleware, rate=RateLimiter(bounds.requests_per_minute)),
            Middleware(BodyReaderMiddleware, limits=bounds),
            Middleware(ConcurrencyMiddleware, admission=admission),
        ],
    )
    api.state.admission = admission
    api.include_router(openai_routes.build_router(service))
    api.include_router(admin_routes.build_router(service, status, admission, report, run_id))
    register_exception_handlers(api)
    absent = openapi.absent_statuses(keys=accepted.required, rate=bounds.requests_per_minute is not None, hosts=hosts is not None)
    api.openapi = lambda: openapi.build_schema(api, absent, keys=accepted.required)  # type: ignore[method-assign]
    return api
