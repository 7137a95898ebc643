"""Traffic of the last hour in intervals of ten seconds.

A closed interval is a few numbers, whatever the traffic was, and there are at most 360. Each call passes the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INTERVAL_SECONDS = 10
"""Length of an interval."""
MAX_INTERVALS = 360
_DAY_INTERVALS = 24 * MAX_INTERVALS
_MAX_LATENCIES = 1000


def latency_percentiles(seconds: Iterable[float]) -> tuple[float | None, float | None]:
    """Median and 95th percentile in milliseconds; None without values.

    >>> latency_percentiles([0.1, 0.2, 0.3])
    (200.0, 290.0)
    """
    values = list(seconds)
    if not values:
        return None, None
    p50, p95 = np.percentile(values, [50, 95]) * 1000
    return round(float(p50), 3), round(float(p95), 3)


def recent_values(length: int = _MAX_LATENCIES) -> deque[float]:
    """An empty buffer of the last ``length`` values."""
    return deque(maxlen=length)


@dataclass
class MetricsInterval:
    """The requests that ended in one interval; ``number`` counts intervals since the epoch."""

    number: int
    requests: int = 0
    refused: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latencies: deque[float] = field(default_factory=recent_values)
    first_token_latencies: deque[float] = field(default_factory=recent_values)

    def to_record(self) -> dict[str, Any]:
        """The interval as plain numbers; ``time`` is its start in Unix seconds."""
        (p50, p95), (first, _) = latency_percentiles(self.latencies), latency_percentiles(self.first_token_latencies)
        return {
            "time": self.number * INTERVAL_SECONDS,
            "requests": self.requests,
            "refused": self.refused,
            "cancelled": self.cancelled,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "latency_p50_ms": p50,
            "latency_p95_ms": p95,
            "first_token_p50_ms": first,
        }


class TimeSeries:
    """The intervals of the last hour, starting with the first one that has data."""

    def __init__(self) -> None:
        """Start empty."""
        self.current: MetricsInterval | None = None
        self.closed: deque[dict[str, Any]] = deque(maxlen=MAX_INTERVALS)

    def interval_at(self, now: float) -> MetricsInterval:
        """The interval of a time. If the clock was set back, it is the newest one; by over a day, all are dropped."""
        number = int(now // INTERVAL_SECONDS)
        if self.current is None or number < self.current.number - _DAY_INTERVALS:
            self.closed.clear()
            self.current = MetricsInterval(number)
        if number > self.current.number:
            self._close(number)
        return self.current

    def records(self, now: float) -> list[dict[str, Any]]:
        """At most 360 intervals, oldest first, including empty ones. The last is still open."""
        if self.current is None:
            return []
        current = self.interval_at(now).to_record()
        return [*self.closed, current][-MAX_INTERVALS:]

    def completion_tokens_per_second(self, now: float) -> float:
        """Generated tokens per second over the closed intervals of the last minute; 0 without one."""
        self.records(now)
        tokens = [record["completion_tokens"] for record in list(self.closed)[-6:]]
        return sum(tokens) / (INTERVAL_SECONDS * len(tokens)) if tokens else 0.0

    def _close(self, number: int) -> None:
        assert self.current is not None
        self.closed.append(self.current.to_record())
        for empty in range(max(self.current.number + 1, number - MAX_INTERVALS), number):
            self.closed.append(MetricsInterval(empty).to_record())
        self.current = MetricsInterval(number)
