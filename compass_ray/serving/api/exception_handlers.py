"""Handlers that give FastAPI's and Starlette's own errors OpenAI's shape: invalid bodies, unknown paths and methods.

An invalid body is a 400 that names the field and never repeats what was sent. Unexpected exceptions are handled in
`middleware.ErrorMiddleware`.
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

NOT_JSON = "The body is not JSON. Send one JSON object in UTF-8."
_NOT_AN_OBJECT = "The body is not a JSON object. Send an object in braces."
_UNSUPPORTED: Mapping[str, str] = {
    "tools": "tools are not supported. Omit them.",
    "functions": "functions are not supported. Omit them.",
    "n": "n must be 1: a response has one choice. Send the request again for another one.",
    "best_of": "best_of must be 1: a response has one choice. Omit it.",
    "presence_penalty": "presence_penalty is not supported. Omit it, or send 0.",
    "frequency_penalty": "frequency_penalty is not supported. Omit it, or send 0.",
    "logit_bias": "logit_bias is not supported. Omit it.",
    "suffix": "suffix is not supported. Omit it.",
    "response_format": "only the format text is supported. Omit it.",
}
"""By the first part of the field's location."""
_FAILURES: Mapping[str, str] = {
    "missing": "is missing",
    "too_long": "has too many entries. The maximum is {max_length}.",
    "too_short": "has too few entries. The minimum is {min_length}.",
    "string_too_long": "is too long. The maximum is {max_length} characters.",
    "string_too_short": "is too short. The minimum is {min_length} characters.",
    "string_unicode": "is not Unicode text",
    "string_pattern_mismatch": "has an invalid format. Expected {pattern}",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
}
"""By pydantic's error type."""


def describe_validation_error(where: str | None, problem: Mapping[str, Any]) -> str:
    """The message for a pydantic error at a location such as ``messages.0.role``. None is the complete body."""
    if where is None:
        return _NOT_AN_OBJECT
    kind, (first, *rest) = problem["type"], where.split(".")
    if first in _UNSUPPORTED:
        message = _UNSUPPORTED[first]
        return message if message.startswith(where) else f"{where}: {message}"
    if first == "messages" and rest[-1:] == ["type"]:
        return f"{where} must be 'text'. Other content types are not supported."
    if first == "messages" and rest[-1:] == ["role"]:
        return f"{where} must be 'system', 'developer', 'user' or 'assistant'. Turns of tools and functions are not supported."
    if first == "messages" and rest[-1:] == ["content"] and problem.get("input", "") is None:
        return f"{where} is null, as in an assistant turn that calls tools. Tools are not supported. Send text."
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
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        context_from_request(request).record_refusal(error)
        return error_response(error)

    @api.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_to_validation_error(error))

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        # FastAPI raises a 400 itself only for a body that it cannot parse.
        message = (
            NOT_JSON if error.status_code == 400 else f"{request.method} {request.url.path[:_MAX_PATH_LENGTH]}: {error.detail}"
        )
        return error_response(ApiError(error.status_code, message, headers=dict(error.headers or {})))


def _to_validation_error(error: RequestValidationError) -> ApiError:
    # The deepest error belongs to the best matching branch of a union; prefer one that is no type error.
    problem = max(error.errors(), key=lambda each: (len(each["loc"]), not each["type"].endswith("_type")))
    if problem["type"] == "json_invalid":
        return ApiError(400, NOT_JSON)
    where = ".".join(str(part) for part in problem["loc"] if _is_field(part)) or None
    return ApiError(400, describe_validation_error(where, problem), param=where)


def _is_field(part: int | str) -> bool:
    """Whether a part of an error's location is a field or an index, and not the request part or a branch of a union."""
    if isinstance(part, int):
        return True
    return part not in _LOCATIONS and part not in _TYPES and part.replace("-", "_").isidentifier() and "constrained" not in part
