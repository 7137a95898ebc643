"""What the guards know of a request before its route runs: its number, who sent it, and its place in the statistics.

Key property: travels in the ASGI scope, so guards and routes need not know one another. It holds no body.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from compass_ray.serving.answering.enquiries import Reply
from compass_ray.serving.answering.failures import ApiError
from compass_ray.serving.api.tally import Tally
from compass_ray.serving.numbers.statistics import Statistics

_FIELD = "exchange"


def _request_id() -> str:
    return f"req_{uuid.uuid4().hex}"


@dataclass
class Exchange:
    """One request: ``key`` is the short hash of its API key, ``tally`` is there where it asks for a reply."""

    statistics: Statistics
    tally: Tally | None = None
    key: str | None = None
    id: str = field(default_factory=_request_id)

    def answered(self, reply: Reply) -> None:
        """Count it as answered."""
        if self.tally:
            self.tally.answered(reply)

    def refused(self, error: ApiError) -> None:
        """Count it as refused, and tell those who run the service where it is theirs to see to."""
        if self.tally:
            self.tally.refused(error.status)
        if line := error.for_operators:
            self.statistics.error(line)

    def ended(self) -> None:
        """It is over; without an answer or a refusal before, its client went away."""
        if self.tally:
            self.tally.cancelled()

    def into(self, scope: Scope) -> dict[str, Any]:
        """The scope with this exchange in it."""
        return {**scope, "state": {**scope.get("state", {}), _FIELD: self}}


def exchange(scope: Scope) -> Exchange:
    """The exchange that a scope carries."""
    found: Exchange = scope["state"][_FIELD]
    return found


def exchange_of(request: Request) -> Exchange:
    """The exchange of a request."""
    return exchange(request.scope)
