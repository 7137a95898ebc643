"""Every refusal and failure of the endpoint, each with its HTTP status and OpenAI's error shape.

Key property: the client sees a sentence that says what to do, never a stack trace; 429 and 503 say when to come again, and a
504 tells OpenAI's own client not to. COMPASS, section 3.2.5. Not here: retries.
"""

from __future__ import annotations

import logging
import math

from compass_ray.serving.api.schema.errors import ErrorDetail, ErrorReply
from compass_ray.serving.inference.backend import (
    AdapterUnavailableError,
    ContextLengthExceededError,
    InvalidRequestError,
    OverloadedError,
    StreamInterruptedError,
)

logger = logging.getLogger(__name__)
_SERVER_FAULTS = frozenset({"internal_error", "adapter_unavailable", "reply_interrupted", "timeout"})
"""Codes of what a client cannot help."""


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Describe it: ``kind`` is OpenAI's ``type``; ``retry_after`` in seconds; ``headers`` go with the reply."""
        super().__init__(message)
        self.status = status
        # A path or a name may hold halves of characters, which no JSON can carry.
        text = message.encode("utf-8", "replace").decode()
        self.detail = ErrorDetail(message=text, type=kind, param=param, code=code)
        self.retry_after = retry_after
        self.extra_headers = headers or {}
        self.cause = ""
        """What is behind a fault of ours, which no client is told."""

    @property
    def body(self) -> ErrorReply:
        """The reply's body."""
        return ErrorReply(error=self.detail)

    @property
    def operator_message(self) -> str | None:
        """A line for those who run the service, where this is theirs to see to; nothing in it was written by a client."""
        if self.detail.code not in _SERVER_FAULTS:
            return None
        cause = f" ({self.cause})" if self.cause else ""
        return f"{self.detail.code}: {self.detail.message}{cause}"

    @property
    def headers(self) -> dict[str, str]:
        """The reply's extra headers."""
        return self.extra_headers if self.retry_after is None else {**self.extra_headers, "Retry-After": str(self.retry_after)}


def to_api_error(error: Exception, reference: str) -> ApiError:
    """What the client is told of an exception; one that nobody foresaw is logged under the reference."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InvalidRequestError):
        return invalid_request(error)
    if isinstance(error, AdapterUnavailableError):
        return adapter_unavailable(str(error))
    if isinstance(error, OverloadedError):
        return overloaded()
    if isinstance(error, StreamInterruptedError):
        return reply_interrupted()
    if isinstance(error, TimeoutError):
        return request_timeout()
    logger.error("request %s failed", reference, exc_info=error)
    return internal_error(reference, type(error).__name__)


def invalid_api_key(*, person: bool = False) -> ApiError:
    """401: no API key, or none that is known here; a ``person``'s browser asks for it, as the password of any name."""
    message = "no valid API key was given; send one as 'Authorization: Bearer KEY'"
    scheme = "Basic" if person else "Bearer"
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": f'{scheme} realm="compass-ray"'})


def no_such_path() -> ApiError:
    """404: a path with characters that no path here has."""
    return ApiError(404, "there is no such path; /openapi.json lists those that there are")


def unknown_model(message: str) -> ApiError:
    """404: nothing answers to this ``model``."""
    return ApiError(404, message, param="model", code="model_not_found")


def body_timeout() -> ApiError:
    """408: the request's body took too long to arrive."""
    return ApiError(408, "the request's body did not arrive in time; send it again", code="request_timeout")


def body_too_large(most: int) -> ApiError:
    """413: a longer body than is read."""
    return ApiError(413, f"the request's body is longer than {most} bytes; shorten it", code="request_too_large")


def unsupported_media_type(given: str) -> ApiError:
    """415: the body is declared to be something else than JSON."""
    message = f"content-type {given[:100]!r} is not read; send application/json"
    return ApiError(415, message, param="content-type", code="unsupported_media_type")


def rate_limited(per_minute: int, retry_after: float) -> ApiError:
    """429: the key or address has used up its minute."""
    message = f"more than {per_minute} requests a minute; wait as long as Retry-After says"
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", retry_after=max(1, math.ceil(retry_after)))


def invalid_request(error: InvalidRequestError) -> ApiError:
    """400: no model could follow this request."""
    return ApiError(
        400, str(error), code="context_length_exceeded" if isinstance(error, ContextLengthExceededError) else "invalid_prompt"
    )


def adapter_unavailable(cause: str) -> ApiError:
    """503: the adapter asked for by version cannot be used now; the ``cause``, which may name files, is for operators."""
    message = "the version asked for cannot be used at present; name another one, or its language alone"
    error = ApiError(503, message, kind="server_error", param="model", code="adapter_unavailable", retry_after=5)
    error.cause = cause
    return error


def overloaded() -> ApiError:
    """503: more requests wait than can be held."""
    message = "too many requests are waiting; send this one again in a second"
    return ApiError(503, message, kind="server_error", code="overloaded", retry_after=1)


def draining() -> ApiError:
    """503: this process is on its way out and finishes what it has."""
    message = "this replica is shutting down and takes nothing new; send the request again"
    return ApiError(503, message, kind="server_error", code="shutting_down", retry_after=1)


def reply_interrupted() -> ApiError:
    """503, or the end of a stream: whoever generated the reply was lost."""
    message = "the rest of the reply was lost with the process that generated it; send the request again"
    return ApiError(503, message, kind="server_error", code="reply_interrupted", retry_after=1)


def request_timeout() -> ApiError:
    """504, or the end of a stream: the reply took longer than a request may."""
    message = "the reply took longer than a request may here; ask for fewer tokens"
    return ApiError(504, message, kind="server_error", code="timeout", headers={"x-should-retry": "false"})


def internal_error(reference: str, cause: str) -> ApiError:
    """500: a fault of ours; the log has the stack trace under the reference, the client is not told the ``cause``."""
    message = f"the service failed on this request; its log says why under {reference}"
    error = ApiError(500, message, kind="server_error", code="internal_error")
    error.cause = cause
    return error
