"""Every refusal and failure of the endpoint, each with its HTTP status and OpenAI's error shape.

Key property: the client sees a sentence that says what to do, never a stack trace. Not here: retries.
"""

from __future__ import annotations

from compass_ray.serving.schema import ErrorDetail, ErrorReply


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
    ) -> None:
        """Describe it: ``kind`` is OpenAI's ``type``; ``retry_after`` in seconds."""
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message=message, type=kind, param=param, code=code)
        self.retry_after = retry_after

    @property
    def body(self) -> ErrorReply:
        """The reply's body."""
        return ErrorReply(error=self.detail)

    @property
    def headers(self) -> dict[str, str]:
        """The reply's extra headers."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def unknown_model(message: str) -> ApiError:
    """404: nothing answers to this ``model``."""
    return ApiError(404, message, param="model", code="model_not_found")


def bad_order(message: str) -> ApiError:
    """400: no model could follow this request."""
    return ApiError(400, message, param="messages", code="context_length_exceeded")


def unavailable(message: str) -> ApiError:
    """503: the adapter asked for by version cannot be used now."""
    return ApiError(503, message, kind="server_error", param="model", code="adapter_unavailable", retry_after=5)


def overloaded() -> ApiError:
    """503: more requests wait than can be held."""
    message = "too many requests are waiting; send this one again in a second"
    return ApiError(503, message, kind="server_error", code="overloaded", retry_after=1)


def internal(reference: str) -> ApiError:
    """500: a fault of ours; the log has the stack trace under the reference."""
    message = f"the service failed on this request; its log says why under {reference}"
    return ApiError(500, message, kind="server_error", code="internal_error")
