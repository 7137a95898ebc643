"""The endpoint's HTTP: routes, event streams and errors, over any `ChatService`.

Key property: every answer is OpenAI's shape, errors too; a body that does not fit is a 400 that names the
field. FastAPI only: it runs under Serve and in a bare test client alike.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from compass_ray.serving import failures
from compass_ray.serving.chat import ChatService, route_header, stream
from compass_ray.serving.failures import ApiError
from compass_ray.serving.schema import ChatCompletion, ChatRequest, ErrorReply, ModelList
from compass_ray.serving.status_page import render

logger = logging.getLogger(__name__)
ROUTE_HEADER = "x-compass-route"
_REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorReply} for status in (400, 404, 405, 500, 503)}


async def _nothing() -> None:
    """What there is to finish where nothing is under way."""


def build_api(
    service: ChatService,
    status: Callable[[], Awaitable[dict[str, Any]]],
    drain: Callable[[], Awaitable[None]] = _nothing,
) -> FastAPI:
    """The application over a service.

    Args:
        service: answers the chat requests.
        status: gives what ``/v1/compass/status`` shows.
        drain: called on an orderly shutdown, after the last request.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await drain()

    api = FastAPI(title="compass-ray", responses=_REFUSALS, lifespan=lifespan)

    @api.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(request: ChatRequest) -> Response:
        """Answer a conversation; ``stream`` gives server-sent events."""
        reply = await service.complete(request)
        headers = {ROUTE_HEADER: route_header(reply.compass)}
        if not request.stream:
            return Response(reply.model_dump_json(), media_type="application/json", headers=headers)
        usage = bool(request.stream_options and request.stream_options.include_usage)
        events = _events(stream(reply, usage=usage))
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    @api.get("/v1/models")
    async def list_models() -> ModelList:
        """Every name that ``model`` may take."""
        await service.refresh()
        return service.models()

    @api.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the ingress answers."""
        return {"status": "ok"}

    @api.get("/v1/compass/status")
    async def compass_status() -> dict[str, Any]:
        """Languages, versions, requests, and the monitor's view of the traffic."""
        return await status()

    @api.get("/", response_class=HTMLResponse)
    async def page() -> str:
        """The status as a page for people."""
        return render(await status())

    _answer_errors(api)
    return api


def _answer_errors(api: FastAPI) -> None:
    @api.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return _error(error)

    @api.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return _error(_malformed(error))

    @api.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> JSONResponse:
        return _error(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))

    @api.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        reference = uuid.uuid4().hex[:12]
        logger.error("request %s failed", reference, exc_info=error)
        return _error(failures.internal(reference))


def _malformed(error: RequestValidationError) -> ApiError:
    problem = error.errors()[0]
    # What is no identifier names a branch of a union, which says nothing to the client.
    parts = [str(part) for part in problem["loc"] if isinstance(part, int) or part.isidentifier()]
    where = ".".join(part for part in parts if part != "body") or None
    message = str(problem["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{where}: {message}" if where else message, param=where)


def _error(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body.model_dump(), status_code=error.status, headers=error.headers)


async def _events(chunks: Iterable[BaseModel]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield f"data: {chunk.model_dump_json(exclude_none=True)}\n\n".encode()
    yield b"data: [DONE]\n\n"
