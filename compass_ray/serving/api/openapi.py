"""Statuses, headers, streams and security schemes of the API's OpenAPI description.

Every status and header that a route can return is declared, and no others. FastAPI derives the bodies from the schema.
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
_RETRY_AFTER = {
    "retry-after": {"description": "Seconds to wait before a retry.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
}
_REQUEST_ID = {REQUEST_ID_HEADER: {"description": "The request id, as in the log.", **_STRING}}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"www-authenticate": {"description": "How to send a key.", **_STRING}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
    504: {"x-should-retry": {"description": "false: a retry would time out as well", **_STRING}},
}
_DESCRIPTIONS: Mapping[int, str] = {
    400: "A field is missing, out of bounds or not supported; `param` names it.",
    401: "No valid API key.",
    404: "No such model, or no report yet.",
    408: "The body took too long to arrive.",
    413: "The body exceeds the size limit.",
    415: "The content type is not JSON.",
    421: "The service does not answer under this host name.",
    429: "The rate limit is exceeded.",
    500: "An internal error. The log has the cause under the request id.",
    503: "Too many concurrent requests, an unavailable version, or a replica that is shutting down.",
    504: "The response exceeded the request timeout.",
}
READ_ERRORS = (401, 421, 500)
WRITE_ERRORS = (400, 401, 408, 413, 415, 421, 429, 500)
COMPLETION_ERRORS = (*WRITE_ERRORS, 404, 503, 504)


def declare_responses(*errors: int, **success: Any) -> dict[int | str, dict[str, Any]]:
    """FastAPI's ``responses`` of a route: its errors, and the headers and content of a success."""
    declared: dict[int | str, dict[str, Any]] = {
        status: {
            "model": ErrorReply,
            "description": _DESCRIPTIONS[status],
            "headers": {**_REQUEST_ID, **_HEADERS.get(status, {})},
        }
        for status in sorted(errors)
    }
    headers = {**_REQUEST_ID, **success.pop("headers", {})}
    return {200: {"headers": headers, **success}, **declared}


def declare_stream_responses() -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that returns a complete or streamed response."""
    route = {ROUTE_HEADER: {"description": "The adapter, the language, and the reason.", **_STRING}}
    content = {"text/event-stream": {"schema": {"type": "string", "description": "`data:` events with one chunk each."}}}
    return declare_responses(
        *COMPLETION_ERRORS, headers=route, content=content, description="The response, or its chunks with `stream`."
    )


def absent_statuses(*, keys: bool, rate: bool, hosts: bool) -> frozenset[int]:
    """Statuses that no request gets: 401 without API keys, 429 without a rate limit, 421 if all hosts are accepted.

    The API returns 400 instead of FastAPI's 422.
    """
    optional = {401: keys, 429: rate, 421: hosts}
    return frozenset({422, *(status for status, used in optional.items() if not used)})


def build_schema(api: FastAPI, absent: Collection[int], *, keys: bool) -> dict[str, Any]:
    """The OpenAPI description, built once, without the statuses in ``absent``."""
    if api.openapi_schema is None:
        schema = get_openapi(title=api.title, version=api.version, routes=api.routes)
        _drop_statuses(schema, absent)
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
        "basic": {"type": "http", "scheme": "basic", "description": "Any user name; the password is the key."},
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in PUBLIC_PATHS else [{"bearer": []}, {"basic": []}]
