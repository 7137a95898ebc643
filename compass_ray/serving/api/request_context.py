"""What the guards know of a request before its route runs: its number, who sent it, and its place in the statistics.

Key property: travels in the ASGI scope, so guards and routes need not know one another. It holds no body.
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
    """The count of one request."""

    def __init__(self, statistics: RequestStatistics) -> None:
        """Count it as begun."""
        self.statistics = statistics
        self.ended = False
        statistics.record_start()

    def record_completion(self, reply: InferenceResponse) -> None:
        """It has its reply."""
        if self._end_once():
            self.statistics.record_completion(
                language=reply.route.language,
                adapter=reply.output.adapter,
                seconds=reply.seconds,
                first_token_seconds=reply.first_token_seconds,
                prompt_tokens=reply.output.prompt_tokens,
                completion_tokens=reply.output.completion_tokens,
            )

    def record_refusal(self, status: int) -> None:
        """It was answered with an error."""
        if self._end_once():
            self.statistics.record_refusal(status)

    def record_cancellation(self) -> None:
        """Its client went away, unless it ended otherwise."""
        if self._end_once():
            self.statistics.record_cancellation()

    def _end_once(self) -> bool:
        ended, self.ended = self.ended, True
        return not ended


_STATE_KEY = "exchange"


def _new_request_id() -> str:
    return f"req_{uuid.uuid4().hex}"


@dataclass
class RequestContext:
    """One request: ``key`` is the short hash of its API key, ``tally`` is there where it asks for a reply."""

    statistics: RequestStatistics
    counter: RequestCounter | None = None
    key: str | None = None
    id: str = field(default_factory=_new_request_id)

    def record_completion(self, reply: InferenceResponse) -> None:
        """Count it as answered."""
        if self.counter:
            self.counter.record_completion(reply)

    def record_refusal(self, error: ApiError) -> None:
        """Count it as refused, and tell those who run the service where it is theirs to see to."""
        if self.counter:
            self.counter.record_refusal(error.status)
        if line := error.operator_message:
            self.statistics.record_error(line)

    def record_end(self) -> None:
        """It is over; without an answer or a refusal before, its client went away."""
        if self.counter:
            self.counter.record_cancellation()

    def attach_to(self, scope: Scope) -> dict[str, Any]:
        """The scope with this exchange in it."""
        return {**scope, "state": {**scope.get("state", {}), _STATE_KEY: self}}


def context_from_scope(scope: Scope) -> RequestContext:
    """The exchange that a scope carries."""
    found: RequestContext = scope["state"][_STATE_KEY]
    return found


def context_from_request(request: Request) -> RequestContext:
    """The exchange of a request."""
    return context_from_scope(request.scope)
