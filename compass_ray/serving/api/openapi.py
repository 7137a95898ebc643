"""What the API's own OpenAPI description says of statuses, headers, streams and keys.

Key property: every status and header that a route can answer with is declared, and none that it cannot. Not here: the bodies,
which FastAPI reads off the schema. COMPASS has no section on it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from compass_ray.serving.api.middleware import PUBLIC_PATHS, REQUEST_ID_HEADER
from compass_ray.serving.api.schema.errors import ErrorReply

ROUTE_HEADER = "x-compass-route"
_STRING = {"schema": {"type": "string"}}
_SECONDS = {"retry-after": {"description": "seconds to wait", "schema": {"type": "string", "pattern": "^[0-9]+$"}}}
_REQUEST_ID = {REQUEST_ID_HEADER: {"description": "the number under which the log knows the request", **_STRING}}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"www-authenticate": {"description": "how to send a key", **_STRING}},
    429: {
        "retry-after": {"description": "seconds until one more is allowed", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
    },
    503: {"retry-after": {"description": "seconds to wait", "schema": {"type": "string", "pattern": "^[0-9]+$"}}},
    504: {"x-should-retry": {"description": "false: it would take as long again", **_STRING}},
}
_DESCRIPTIONS: Mapping[int, str] = {
    400: "a field that is missing, out of bounds or cannot be honoured; `param` names it",
    401: "no valid API key, where keys are needed",
    404: "no such model",
    408: "the body took too long to arrive",
    413: "the body is longer than is read",
    415: "the body is not declared to be JSON",
    429: "more requests a minute than the key may send",
    500: "a fault of the service; the log has it under the request's number",
    503: "too much is waiting, a named version cannot be used, or the replica is shutting down",
    504: "the reply took longer than a request may",
}
READ_ERRORS = (401, 500)
WRITE_ERRORS = (400, 401, 408, 413, 415, 429, 500)
COMPLETION_ERRORS = (*WRITE_ERRORS, 404, 503, 504)


def declare_responses(*refusals: int, **success: Any) -> dict[int | str, dict[str, Any]]:
    """FastAPI's ``responses`` of a route: its refusals, and what it says beyond the body where it succeeds."""
    declared: dict[int | str, dict[str, Any]] = {
        status: {
            "model": ErrorReply,
            "description": _DESCRIPTIONS[status],
            "headers": {**_REQUEST_ID, **_HEADERS.get(status, {})},
        }
        for status in sorted(refusals)
    }
    headers = {**_REQUEST_ID, **success.pop("headers", {})}
    return {200: {"headers": headers, **success}, **declared}


def declare_stream_responses() -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that answers with a reply, whole or as a stream."""
    route = {ROUTE_HEADER: {"description": "who answers, the language found, and why", **_STRING}}
    content = {"text/event-stream": {"schema": {"type": "string", "description": "`data:` events, one chunk each"}}}
    return declare_responses(
        *COMPLETION_ERRORS, headers=route, content=content, description="the reply, or with `stream` its pieces"
    )


def build_schema(api: FastAPI, *, keys: bool, rate: bool) -> dict[str, Any]:
    """The description of the API, made once; without ``keys`` there is no 401, without a ``rate`` no 429."""
    if api.openapi_schema is None:
        schema = get_openapi(title=api.title, version=api.version, routes=api.routes)
        # In the place of FastAPI's 422 there is a 400.
        _drop_statuses(schema, {422} | ({401} if not keys else set()) | ({429} if not rate else set()))
        if keys:
            _declare_keys(schema)
        api.openapi_schema = schema
    return api.openapi_schema


def _drop_statuses(schema: dict[str, Any], statuses: Collection[int]) -> None:
    for operations in schema["paths"].values():
        for operation in operations.values():
            for status in statuses:
                operation["responses"].pop(str(status), None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _declare_keys(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic", "description": "any name; the password is the key"},
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in PUBLIC_PATHS else [{"bearer": []}, {"basic": []}]
