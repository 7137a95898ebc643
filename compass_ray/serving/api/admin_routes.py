"""The routes for operators: health, metrics, status and the dashboard.

The numbers come from `metrics` and the monitor; the page comes from `dashboard`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import TypeAdapter

from compass_ray.serving import dashboard
from compass_ray.serving.api import openapi
from compass_ray.serving.api.rate_limits import ConcurrencyLimiter
from compass_ray.serving.inference import errors
from compass_ray.serving.inference.service import InferenceService
from compass_ray.serving.metrics.exporters import CONTENT_TYPE
from compass_ray.translations import choose_language

ReportSource = Callable[[], Awaitable[bytes | None]]
"""Returns the run's report as HTML; None if it was not written yet."""
RUN_HEADER = "x-compass-run"
"""The header of ``/healthz`` with the `RunDir.public_id` of the served run. Command-line clients find their service by it."""
_STATUS = TypeAdapter(dict[str, Any])
_METRICS = {"text/plain": {"schema": {"type": "string"}}}


async def no_report() -> None:
    """The default report: none."""


def build_router(
    service: InferenceService,
    status: Callable[[], Awaitable[dict[str, Any]]],
    admission: ConcurrencyLimiter,
    report: ReportSource = no_report,
    run_id: str = "",
) -> APIRouter:
    """The routes of a service. ``run_id`` is the `RunDir.public_id` of its run."""
    routes = APIRouter()

    @routes.get("/healthz", responses=openapi.declare_responses(503))
    async def health(response: Response) -> dict[str, str]:
        """Whether the ingress accepts requests. Needs no key. ``down`` names parts that do not run, such as the monitor."""
        if admission.closed:
            raise errors.draining()
        response.headers[RUN_HEADER] = run_id
        down = ", ".join(service.statistics.down)
        return {"status": "degraded", "down": down} if down else {"status": "ok"}

    @routes.get("/metrics", response_class=Response, responses=openapi.declare_responses(*openapi.READ_ERRORS, content=_METRICS))
    async def metrics() -> Response:
        """Metrics of this process in Prometheus text format."""
        return Response(service.statistics.exposition(), headers={"content-type": CONTENT_TYPE})

    @routes.get("/v1/compass/status", response_model=dict[str, Any], responses=openapi.declare_responses(*openapi.READ_ERRORS))
    async def compass_status() -> Response:
        """Languages, versions, requests, and the monitor's state."""
        # FastAPI's own serialization takes 30 times as long. NaN and infinity become null.
        return Response(_STATUS.dump_json(await status()), media_type="application/json")

    @routes.get("/", response_class=HTMLResponse, responses=openapi.declare_responses(*openapi.READ_ERRORS))
    async def dashboard_page(request: Request) -> Response:
        """The status as a web page, in the language of ``?lang=`` or of the browser."""
        return _page_response(dashboard.INDEX_PATH, request)

    @routes.get("/docs", response_class=HTMLResponse, responses=openapi.declare_responses(*openapi.READ_ERRORS))
    async def docs_page(request: Request) -> Response:
        """This reference as a web page. It loads nothing from other hosts."""
        return _page_response(dashboard.DOCS_PATH, request)

    @routes.get("/report", response_class=HTMLResponse, responses=openapi.declare_responses(*openapi.READ_ERRORS, 404))
    async def report_page() -> Response:
        """The report of the run, as last written by ``compass-ray report``."""
        found = await report()
        if found is None:
            raise errors.no_report()
        return Response(found, media_type="text/html; charset=utf-8", headers=dict(dashboard.REPORT_HEADERS))

    for path, file in dashboard.load_files().items():
        routes.add_api_route(path, partial(_file_response, file), include_in_schema=False)
    return routes


def _page_response(path: str, request: Request) -> Response:
    language = choose_language(request.query_params.get("lang"), request.headers.get("accept-language", ""))
    page = dashboard.load_page(path, language)
    headers = {**dashboard.HEADERS, "content-language": language, "vary": "accept-language"}
    return Response(page.body, media_type=page.media_type, headers=headers)


def _file_response(file: dashboard.DashboardFile) -> Response:
    return Response(file.body, media_type=file.media_type, headers=dict(dashboard.HEADERS))
