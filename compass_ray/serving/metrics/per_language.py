"""Statistics of one language and of one shadow version in the traffic of a replica.

The number of stored latencies is bounded. Filled and read by `request_stats`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from compass_ray.serving.metrics.time_series import latency_percentiles, recent_values


@dataclass
class LanguageStats:
    """Statistics of one language."""

    requests: int = 0
    completion_tokens: int = 0
    latencies: deque[float] = field(default_factory=lambda: recent_values(200))

    def summary(self) -> dict[str, Any]:
        """The counts, and the latency percentiles of the last two hundred responses."""
        p50, p95 = latency_percentiles(self.latencies)
        return {
            "requests": self.requests,
            "completion_tokens": self.completion_tokens,
            "latency_p50_ms": p50,
            "latency_p95_ms": p95,
        }


@dataclass
class ShadowStats:
    """Statistics of one shadow version."""

    requests: int = 0
    failed: int = 0
    nlls: deque[float] = field(default_factory=recent_values)
    latencies: deque[float] = field(default_factory=recent_values)

    def record_reply(self, mean_nll: float | None, seconds: float) -> None:
        """Add a reply; ``mean_nll`` is in nats per token."""
        self.latencies.append(seconds)
        if mean_nll is not None and math.isfinite(mean_nll):
            self.nlls.append(mean_nll)

    def mean_nll(self) -> float | None:
        """Mean over the last thousand replies, in nats per token."""
        return sum(self.nlls) / len(self.nlls) if self.nlls else None

    def summary(self) -> dict[str, Any]:
        """The counts, the mean loss and the latency percentiles."""
        p50, p95 = latency_percentiles(self.latencies)
        counts = {"requests": self.requests, "failed": self.failed}
        return {**counts, "mean_nll": self.mean_nll(), "latency_p50_ms": p50, "latency_p95_ms": p95}
