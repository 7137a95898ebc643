"""The numbers that a monitoring system reads of the service: their names, kinds and labels.

Key property: one table, `METRICS`, says what there is; whoever exports them (see `instruments`) makes them from it, so the names
are the same everywhere. No label holds anything that a client wrote. It counts nothing by itself: `statistics` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the histograms' buckets; the last is the longest that a request may take by default."""
NO_LABELS: Mapping[str, str] = MappingProxyType({})


class MetricKind(Enum):
    """How a number changes: it only grows, it is set, or it is spread over buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One exported number."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = _LATENCY_BUCKETS
    """Of a histogram's buckets."""

    @property
    def series_names(self) -> tuple[str, ...]:
        """The names of its series in Prometheus."""
        if self.kind is MetricKind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


REQUESTS = Metric(
    "compass_requests_total",
    MetricKind.COUNTER,
    "Requests that ended, by HTTP status (499: the client went away), language and adapter.",
    ("status", "language", "adapter"),
)
TOKENS = Metric(
    "compass_tokens_total", MetricKind.COUNTER, "Tokens of answered requests; kind is prompt or completion.", ("kind", "language")
)
LATENCY = Metric("compass_request_seconds", MetricKind.HISTOGRAM, "Time from a request to the end of its answer.", ("language",))
FIRST_TOKEN = Metric(
    "compass_first_token_seconds", MetricKind.HISTOGRAM, "Time from a request to the first token of its answer.", ("language",)
)
WAITING = Metric("compass_requests_waiting", MetricKind.GAUGE, "Requests that wait or are being answered.")
FALLBACKS = Metric("compass_fallbacks_total", MetricKind.COUNTER, "Requests answered along the fallback order.")
SHADOWS = Metric(
    "compass_shadow_requests_total",
    MetricKind.COUNTER,
    "Copies of requests that a shadow version answered; result is ok or failed.",
    ("adapter", "result"),
)
SHADOW_NLL = Metric(
    "compass_shadow_mean_nll", MetricKind.GAUGE, "Mean NLL a token of a shadow version's replies, in nats.", ("adapter",)
)
FEEDBACK = Metric(
    "compass_feedback_total", MetricKind.COUNTER, "Ratings that clients sent; rating is good, bad or none.", ("rating",)
)
DIVERGENCE = Metric(
    "compass_divergence_bits", MetricKind.GAUGE, "Divergence of the last check from the reference.", ("language",)
)
THRESHOLD = Metric(
    "compass_divergence_threshold_bits", MetricKind.GAUGE, "What the last check's divergence is held against.", ("language",)
)
TEST_EFFECT = Metric(
    "compass_drift_leg_effect",
    MetricKind.GAUGE,
    "What each test of the last check found, in bits, nats a token, or shares; leg is divergence, loss, feedback or canary.",
    ("language", "leg"),
)
TEST_P_VALUE = Metric("compass_drift_leg_p_value", MetricKind.GAUGE, "How likely as much is by chance.", ("language", "leg"))
NOISE = Metric("compass_noise_share", MetricKind.GAUGE, "Share of the window's prompts that lie in no cluster.", ("language",))
DISTANCE = Metric(
    "compass_centroid_distance", MetricKind.GAUGE, "Mean distance of the window's prompts to their centroids.", ("language",)
)
STALE = Metric(
    "compass_clusters_stale", MetricKind.GAUGE, "1 where the clusters no longer fit the window, else 0.", ("language",)
)
REPLY_NLL = Metric(
    "compass_reply_mean_nll", MetricKind.GAUGE, "Mean NLL a token of the live version's last replies, in nats.", ("language",)
)
REPLY_BAD = Metric(
    "compass_reply_bad_share",
    MetricKind.GAUGE,
    "Of the live version's last replies that were rated, the share rated bad.",
    ("language",),
)
CANARY_RIGHT = Metric(
    "compass_canary_right_share",
    MetricKind.GAUGE,
    "Share of the live version's last canary questions answered right.",
    ("language",),
)
PROMPTS = Metric("compass_monitored_prompts", MetricKind.GAUGE, "Prompts that the monitor has recorded.", ("language",))
DROPPED = Metric(
    "compass_observations_dropped_total", MetricKind.COUNTER, "Observations that did not fit the queue to the monitor."
)
QUEUED = Metric("compass_observations_waiting", MetricKind.GAUGE, "Observations on their way to the monitor.")

METRICS = (
    REQUESTS,
    TOKENS,
    LATENCY,
    FIRST_TOKEN,
    WAITING,
    FALLBACKS,
    SHADOWS,
    SHADOW_NLL,
    FEEDBACK,
    DIVERGENCE,
    THRESHOLD,
    TEST_EFFECT,
    TEST_P_VALUE,
    NOISE,
    DISTANCE,
    STALE,
    REPLY_NLL,
    REPLY_BAD,
    CANARY_RIGHT,
    PROMPTS,
    DROPPED,
    QUEUED,
)
