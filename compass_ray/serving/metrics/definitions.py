"""The exported metrics of the service: names, types, help texts and labels.

All exporters (see `exporters`) are built from the one table `METRICS`, so names are the same everywhere. No label contains text
from a client. `request_stats` does the counting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram buckets in seconds. The last is the default request timeout."""
NO_LABELS: Mapping[str, str] = MappingProxyType({})


class MetricKind(Enum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One exported metric."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = _LATENCY_BUCKETS
    """Bucket bounds of a histogram."""

    @property
    def series_names(self) -> tuple[str, ...]:
        """The names of its series in Prometheus."""
        if self.kind is MetricKind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


REQUESTS = Metric(
    "compass_requests_total",
    MetricKind.COUNTER,
    "Finished requests by HTTP status (499: client disconnected), language and adapter.",
    ("status", "language", "adapter"),
)
TOKENS = Metric(
    "compass_tokens_total",
    MetricKind.COUNTER,
    "Tokens of completed requests; kind is prompt or completion.",
    ("kind", "language"),
)
LATENCY = Metric(
    "compass_request_seconds", MetricKind.HISTOGRAM, "Time from a request to the end of its response, in seconds.", ("language",)
)
FIRST_TOKEN = Metric(
    "compass_first_token_seconds",
    MetricKind.HISTOGRAM,
    "Time from a request to the first token of its response, in seconds.",
    ("language",),
)
WAITING = Metric("compass_requests_waiting", MetricKind.GAUGE, "Active requests, queued or being answered.")
FALLBACKS = Metric("compass_fallbacks_total", MetricKind.COUNTER, "Fallback steps of requests whose adapter could not be used.")
NOT_STORED = Metric(
    "compass_requests_not_stored_total",
    MetricKind.COUNTER,
    "Completed requests whose prompts are kept from the monitor: store is false, or they have echo or token ids.",
    ("language",),
)
SHADOWS = Metric(
    "compass_shadow_requests_total",
    MetricKind.COUNTER,
    "Copies of requests sent to a shadow version; result is ok or failed.",
    ("adapter", "result"),
)
SHADOW_NLL = Metric(
    "compass_shadow_mean_nll", MetricKind.GAUGE, "Mean NLL per token of a shadow version's replies, in nats.", ("adapter",)
)
FEEDBACK = Metric(
    "compass_feedback_total", MetricKind.COUNTER, "Feedback from clients; rating is good, bad or none.", ("rating",)
)
DIVERGENCE = Metric(
    "compass_divergence_bits", MetricKind.GAUGE, "Divergence from the reference at the last drift check, in bits.", ("language",)
)
THRESHOLD = Metric(
    "compass_divergence_threshold_bits", MetricKind.GAUGE, "Divergence threshold at the last drift check, in bits.", ("language",)
)
TEST_EFFECT = Metric(
    "compass_drift_leg_effect",
    MetricKind.GAUGE,
    "Effect size of each test at the last drift check (bits, nats per token, or shares); leg is the test's name.",
    ("language", "leg"),
)
TEST_P_VALUE = Metric(
    "compass_drift_leg_p_value", MetricKind.GAUGE, "p-value of this test at the last drift check.", ("language", "leg")
)
NOISE = Metric("compass_noise_share", MetricKind.GAUGE, "Share of the window's prompts outside all clusters.", ("language",))
DISTANCE = Metric(
    "compass_centroid_distance", MetricKind.GAUGE, "Mean distance of the window's prompts to their centroids.", ("language",)
)
STALE = Metric(
    "compass_clusters_stale", MetricKind.GAUGE, "1 if the clusters no longer fit the window, otherwise 0.", ("language",)
)
REPLY_NLL = Metric(
    "compass_reply_mean_nll", MetricKind.GAUGE, "Mean NLL per token of the live version's last replies, in nats.", ("language",)
)
REPLY_BAD = Metric(
    "compass_reply_bad_share",
    MetricKind.GAUGE,
    "Share of the live version's last rated replies that were rated bad.",
    ("language",),
)
CANARY_RIGHT = Metric(
    "compass_canary_right_share",
    MetricKind.GAUGE,
    "Share of the live version's last canary items answered correctly.",
    ("language",),
)
PROMPTS = Metric("compass_monitored_prompts", MetricKind.GAUGE, "Prompts recorded by the monitor.", ("language",))
DAMAGED_LINES = Metric(
    "compass_monitor_damaged_lines", MetricKind.GAUGE, "Damaged lines of the monitor's files that were set aside.", ("file",)
)
DROPPED = Metric(
    "compass_observations_dropped_total", MetricKind.COUNTER, "Observations dropped because the queue to the monitor was full."
)
QUEUED = Metric("compass_observations_waiting", MetricKind.GAUGE, "Observations queued for the monitor.")
PART_UP = Metric(
    "compass_part_up",
    MetricKind.GAUGE,
    "1 if this part of the service runs, otherwise 0; part is monitor or controller.",
    ("part",),
)
UNAVAILABLE = Metric("compass_adapters_unavailable", MetricKind.GAUGE, "Versions of adapters that cannot be loaded.")

METRICS = (
    REQUESTS,
    TOKENS,
    LATENCY,
    FIRST_TOKEN,
    WAITING,
    FALLBACKS,
    NOT_STORED,
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
    DAMAGED_LINES,
    DROPPED,
    QUEUED,
    PART_UP,
    UNAVAILABLE,
)
