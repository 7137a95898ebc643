"""Per-request context: request id, API key and outcome counter. Middleware sets it and routes read it.

It travels in the ASGI scope, so middleware and routes do not depend on each other.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from compass_ray.serving.inference.errors import ApiError
from compass_ray.serving.inference.requests import InferenceResponse
from compass_ray.serving.metrics.request_stats import RequestStatistics


class RequestCounter:
    """Counts one request exactly once."""

    def __init__(self, statistics: RequestStatistics) -> None:
        """Count the request as started."""
        self.statistics = statistics
        self.ended = False
        statistics.record_start()

    def record_completion(self, response: InferenceResponse) -> None:
        """Count it as answered."""
        if self._end_once():
            self.statistics.record_completion(
                language=response.route.language,
                adapter=response.output.adapter,
                seconds=response.seconds,
                first_token_seconds=response.first_token_seconds,
                prompt_tokens=response.output.prompt_tokens,
                completion_tokens=response.output.completion_tokens,
            )

    def record_refusal(self, status: int) -> None:
        """Count it as answered with an error."""
        if self._end_once():
            self.statistics.record_refusal(status)

    def record_cancellation(self) -> None:
        """Count it as cancelled by the client, unless it ended before."""
        if self._end_once():
            self.statistics.record_cancellation()

    def _end_once(self) -> bool:
        ended, self.ended = self.ended, True
        return not ended


_STATE_KEY = "request_context"


def _new_request_id() -> str:
    return f"req_{uuid.uuid4().hex}"


@dataclass
class RequestContext:
    """One request. ``key`` is the short hash of its API key, ``client`` the pseudonym of its client.

    ``counter`` is set for completion requests.
    """

    statistics: RequestStatistics
    counter: RequestCounter | None = None
    key: str | None = None
    client: str | None = None
    id: str = field(default_factory=_new_request_id)

    def record_completion(self, response: InferenceResponse) -> None:
        """Count it as answered."""
        if self.counter:
            self.counter.record_completion(response)

    def record_refusal(self, error: ApiError) -> None:
        """Count it as refused, and record a server fault for operators."""
        if self.counter:
            self.counter.record_refusal(error.status)
        if line := error.operator_message:
            self.statistics.record_error(line)

    def record_end(self) -> None:
        """The request ended. Without a response or an error before, the client disconnected."""
        if self.counter:
            self.counter.record_cancellation()

    def attach_to(self, scope: Scope) -> dict[str, Any]:
        """The scope with this context."""
        return {**scope, "state": {**scope.get("state", {}), _STATE_KEY: self}}


def context_from_scope(scope: Scope) -> RequestContext:
    """The context in a scope."""
    context: RequestContext = scope["state"][_STATE_KEY]
    return context


def context_from_request(request: Request) -> RequestContext:
    """The context of a request."""
    return context_from_scope(request.scope)
