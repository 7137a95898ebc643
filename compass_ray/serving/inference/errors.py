"""Every error of the endpoint, with its HTTP status and OpenAI's error shape.

The client gets a message that says what to do, never a stack trace. 429 and 503 say when to retry. A 504 tells OpenAI's client
not to retry. COMPASS, section 3.2.5.
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
"""Codes of errors that the client did not cause."""


class ApiError(Exception):
    """An error response to a request."""

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
        """``kind`` is OpenAI's ``type``; ``retry_after`` is in seconds; ``headers`` are added to the response."""
        super().__init__(message)
        self.status = status
        # A path or a name may contain lone surrogates, which JSON cannot encode.
        text = message.encode("utf-8", "replace").decode()
        self.detail = ErrorDetail(message=text, type=kind, param=param, code=code)
        self.retry_after = retry_after
        self.extra_headers = headers or {}
        self.cause = ""
        """The cause of a server fault, for the log. Never sent to the client."""

    @property
    def body(self) -> ErrorReply:
        """The response body."""
        return ErrorReply(error=self.detail)

    @property
    def operator_message(self) -> str | None:
        """A log line for operators if this is a server fault, else None. Contains no text from a client."""
        if self.detail.code not in _SERVER_FAULTS:
            return None
        cause = f" ({self.cause})" if self.cause else ""
        return f"{self.detail.code}: {self.detail.message}{cause}"

    @property
    def headers(self) -> dict[str, str]:
        """The extra response headers."""
        return self.extra_headers if self.retry_after is None else {**self.extra_headers, "Retry-After": str(self.retry_after)}


def to_api_error(error: Exception, reference: str) -> ApiError:
    """The API error for an exception. An unexpected exception is logged with the request id ``reference``."""
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
    logger.error("ingress: request failed request_id=%s", reference, exc_info=error)
    return internal_error(reference, type(error).__name__)


def invalid_api_key(*, person: bool = False) -> ApiError:
    """401: no API key or an unknown one. A browser (``person``) prompts for it as a password with any user name."""
    message = "No valid API key. Send one as 'Authorization: Bearer KEY'."
    scheme = "Basic" if person else "Bearer"
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": f'{scheme} realm="compass-ray"'})


def no_such_path() -> ApiError:
    """404: a path with characters that no path here has."""
    return ApiError(404, "No such path. GET /openapi.json lists all paths.")


def no_report() -> ApiError:
    """404: the run has no report yet."""
    return ApiError(404, "The run has no report yet. Run 'compass-ray report RUN' and reload.", code="report_not_found")


def unknown_host() -> ApiError:
    """421: the ``Host`` header names another host."""
    message = (
        "This service does not answer under the host name of the request. Use localhost, or add the name to serve.allowed_hosts."
    )
    return ApiError(421, message, code="host_not_allowed")


def unknown_model(message: str) -> ApiError:
    """404: no such ``model``."""
    return ApiError(404, message, param="model", code="model_not_found")


def body_timeout() -> ApiError:
    """408: the request body took too long to arrive."""
    return ApiError(408, "The request body did not arrive in time. Send it again.", code="request_timeout")


def body_too_large(max_bytes: int) -> ApiError:
    """413: the request body exceeds the limit."""
    return ApiError(413, f"The request body is longer than {max_bytes} bytes. Shorten it.", code="request_too_large")


def unsupported_media_type(given: str) -> ApiError:
    """415: the content type is not JSON."""
    message = f"Unsupported content-type {given[:100]!r}. Send application/json."
    return ApiError(415, message, param="content-type", code="unsupported_media_type")


def rate_limited(per_minute: int, retry_after: float) -> ApiError:
    """429: the key or address sent too many requests in the last minute."""
    message = f"Rate limit of {per_minute} requests per minute exceeded. Retry after the seconds in Retry-After."
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", retry_after=max(1, math.ceil(retry_after)))


def invalid_request(error: InvalidRequestError) -> ApiError:
    """400: no model can process this request."""
    return ApiError(
        400, str(error), code="context_length_exceeded" if isinstance(error, ContextLengthExceededError) else "invalid_prompt"
    )


def adapter_unavailable(cause: str) -> ApiError:
    """503: the requested version cannot be used now. The ``cause`` may name files; it goes only to the log."""
    message = "The requested version cannot be used now. Request another version, or only the language."
    error = ApiError(503, message, kind="server_error", param="model", code="adapter_unavailable", retry_after=5)
    error.cause = cause
    return error


def overloaded() -> ApiError:
    """503: too many concurrent requests."""
    message = "Too many concurrent requests. Retry in a second."
    return ApiError(503, message, kind="server_error", code="overloaded", retry_after=1)


def draining() -> ApiError:
    """503: this replica is shutting down and finishes its active requests."""
    message = "This replica is shutting down and accepts no new requests. Send the request again."
    return ApiError(503, message, kind="server_error", code="shutting_down", retry_after=1)


def reply_interrupted() -> ApiError:
    """503, or the end of a stream: the generating process was lost."""
    message = "The process that generated this response was lost. Send the request again."
    return ApiError(503, message, kind="server_error", code="reply_interrupted", retry_after=1)


def request_timeout() -> ApiError:
    """504, or the end of a stream: the response exceeded the request timeout."""
    message = "The response exceeded the request timeout. Request fewer tokens."
    return ApiError(504, message, kind="server_error", code="timeout", headers={"x-should-retry": "false"})


def internal_error(reference: str, cause: str) -> ApiError:
    """500: a server fault. The log has the stack trace under the request id ``reference``; ``cause`` goes only to the log."""
    message = f"Internal error. Operators find the cause in the log under {reference}."
    error = ApiError(500, message, kind="server_error", code="internal_error")
    error.cause = cause
    return error
