"""FastAPI's and Starlette's own refusals in OpenAI's shape: bodies that do not fit, paths and methods that are not there.

Key property: a body that does not fit is a 400 that names the field and never repeats what was sent. Not here: what fails
unforeseen, which is `guards.Envelope`.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from compass_ray.serving.api.middleware import error_response
from compass_ray.serving.api.request_context import context_from_request
from compass_ray.serving.api.validation_messages import NOT_JSON, describe_validation_error
from compass_ray.serving.inference.errors import ApiError

_LOCATIONS = ("body", "header", "path", "query")
_TYPES = frozenset({"str", "int", "float", "bool"})
_MAX_PATH_LENGTH = 200


def register_exception_handlers(api: FastAPI) -> None:
    """Register the handlers."""

    @api.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        context_from_request(request).record_refusal(error)
        return error_response(error)

    @api.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_to_validation_error(error))

    @api.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> JSONResponse:
        # FastAPI's own 400 is of a body that cannot be read at all.
        message = (
            NOT_JSON if error.status_code == 400 else f"{request.method} {request.url.path[:_MAX_PATH_LENGTH]}: {error.detail}"
        )
        return error_response(ApiError(error.status_code, message, headers=dict(error.headers or {})))


def _to_validation_error(error: RequestValidationError) -> ApiError:
    # The deepest: of a union's branches it is the one that fits best, and of these the one of the right type.
    problem = max(error.errors(), key=lambda each: (len(each["loc"]), not each["type"].endswith("_type")))
    if problem["type"] == "json_invalid":
        return ApiError(400, NOT_JSON)
    where = ".".join(str(part) for part in problem["loc"] if _is_field(part)) or None
    return ApiError(400, describe_validation_error(where, problem), param=where)


def _is_field(part: int | str) -> bool:
    """Whether a part of an error's place is a field or an index, not where the request had it or a branch of a union."""
    if isinstance(part, int):
        return True
    return part not in _LOCATIONS and part not in _TYPES and part.replace("-", "_").isidentifier() and "constrained" not in part
