"""FastAPI's and Starlette's own refusals in OpenAI's shape: bodies that do not fit, paths and methods that are not there.

Key property: a body that does not fit is a 400 that names the field and never repeats what was sent. Not here: what fails
unforeseen, which is `guards.Envelope`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from compass_ray.serving.api.middleware import error_response
from compass_ray.serving.api.request_context import context_from_request
from compass_ray.serving.inference.errors import ApiError

NOT_JSON = "the body is not JSON; send one JSON object in UTF-8"
_NOT_AN_OBJECT = "the body is not a JSON object; send one, in braces"
_UNSUPPORTED: Mapping[str, str] = {
    "tools": "tools are not supported here; leave them out",
    "functions": "functions are not supported here; leave them out",
    "n": "n is 1 here: a reply has one choice; send the request again for another",
    "best_of": "best_of is 1 here: a reply has one choice; leave it out",
    "presence_penalty": "presence_penalty is not supported here; leave it out, or send 0",
    "frequency_penalty": "frequency_penalty is not supported here; leave it out, or send 0",
    "logit_bias": "logit_bias is not supported here; leave it out",
    "echo": "echo is not supported here; leave it out, or send false",
    "suffix": "suffix is not supported here; leave it out",
    "response_format": "only text is a format of replies here; leave it out",
}
"""By the first part of a field's place."""
_FAILURES: Mapping[str, str] = {
    "missing": "is missing",
    "too_long": "has too many entries; {max_length} is the most",
    "too_short": "has too few entries; {min_length} is the least",
    "string_too_long": "is too long; {max_length} characters are the most",
    "string_too_short": "is too short; {min_length} is the least number of characters",
    "string_unicode": "is not Unicode text",
    "string_pattern_mismatch": "does not look as it should; expected {pattern}",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
}
"""By pydantic's name of the failure."""


def describe_validation_error(where: str | None, problem: Mapping[str, Any]) -> str:
    """The sentence for one of pydantic's problems at a place such as ``messages.0.role``; None is the whole body."""
    if where is None:
        return _NOT_AN_OBJECT
    kind, (first, *rest) = problem["type"], where.split(".")
    if first in _UNSUPPORTED:
        own = _UNSUPPORTED[first]
        return own if own.startswith(where) else f"{where}: {own}"
    if first == "messages" and rest[-1:] == ["type"]:
        return f"{where} must be 'text': nothing else is read here"
    if kind in _FAILURES:
        return f"{where} {_FAILURES[kind].format(**problem.get('ctx', {}))}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should be "):
        return f"{where} must be {message.removeprefix('Input should be ')}"
    return f"{where}: {message}"


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
