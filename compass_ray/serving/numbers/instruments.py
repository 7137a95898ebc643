"""The numbers that a monitoring system reads of the service: their names, kinds and labels, and the Prometheus text.

Key property: one table, `METRICS`, says what there is; whoever exports them (here Prometheus's own client, in
`ray_metrics` the agents of Ray's nodes) makes them from it, so the names are the same everywhere. No label holds anything that
a client wrote. It counts nothing by itself: `statistics` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Of `PrometheusInstruments.exposition`."""
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the histograms' buckets; the last is the longest that a request may take by default."""
NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Kind(Enum):
    """How a number changes: it only grows, it is set, or it is spread over buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One exported number."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = _SECONDS
    """Of a histogram's buckets."""

    @property
    def exported(self) -> tuple[str, ...]:
        """The names of its series in Prometheus."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


REQUESTS = Metric(
    "compass_requests_total",
    Kind.COUNTER,
    "Requests that ended, by HTTP status (499: the client went away), language and adapter.",
    ("status", "language", "adapter"),
)
TOKENS = Metric(
    "compass_tokens_total", Kind.COUNTER, "Tokens of answered requests; kind is prompt or completion.", ("kind", "language")
)
LATENCY = Metric("compass_request_seconds", Kind.HISTOGRAM, "Time from a request to the end of its answer.", ("language",))
FIRST_TOKEN = Metric(
    "compass_first_token_seconds", Kind.HISTOGRAM, "Time from a request to the first token of its answer.", ("language",)
)
WAITING = Metric("compass_requests_waiting", Kind.GAUGE, "Requests that wait or are being answered.")
FALLBACKS = Metric("compass_fallbacks_total", Kind.COUNTER, "Requests answered along the fallback order.")
SHADOWS = Metric(
    "compass_shadow_requests_total",
    Kind.COUNTER,
    "Copies of requests that a shadow version answered; result is ok or failed.",
    ("adapter", "result"),
)
SHADOW_NLL = Metric(
    "compass_shadow_mean_nll", Kind.GAUGE, "Mean NLL a token of a shadow version's replies, in nats.", ("adapter",)
)
FEEDBACK = Metric("compass_feedback_total", Kind.COUNTER, "Ratings that clients sent; rating is good, bad or none.", ("rating",))
DIVERGENCE = Metric("compass_divergence_bits", Kind.GAUGE, "Divergence of the last check from the reference.", ("language",))
THRESHOLD = Metric(
    "compass_divergence_threshold_bits", Kind.GAUGE, "What the last check's divergence is held against.", ("language",)
)
PROMPTS = Metric("compass_monitored_prompts", Kind.GAUGE, "Prompts that the monitor has recorded.", ("language",))
DROPPED = Metric("compass_observations_dropped_total", Kind.COUNTER, "Observations that did not fit the queue to the monitor.")
QUEUED = Metric("compass_observations_waiting", Kind.GAUGE, "Observations on their way to the monitor.")

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
    PROMPTS,
    DROPPED,
    QUEUED,
)


class Instruments(Protocol):
    """Takes the numbers of `METRICS`; returns at once."""

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Let a counter grow."""
        ...

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Give a gauge its value."""
        ...

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Count a value in its bucket."""
        ...


class PrometheusInstruments:
    """The numbers of this process, in a registry of their own."""

    def __init__(self) -> None:
        """Start at nought, with no second series beside each that says when it began."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._made: dict[str, Any] = {metric.name: _collector(metric, self.registry) for metric in METRICS}

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Let a counter grow."""
        self._series(metric, labels).inc(value)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Give a gauge its value."""
        self._series(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Count a value in its bucket."""
        self._series(metric, labels).observe(value)

    def exposition(self) -> bytes:
        """Every number as Prometheus text, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _series(self, metric: Metric, labels: Mapping[str, str]) -> Any:
        made = self._made[metric.name]
        return made.labels(**labels) if metric.labels else made


class Several:
    """Passes every number on to each of several."""

    def __init__(self, instruments: Sequence[Instruments]) -> None:
        """Take them together."""
        self.instruments = tuple(instruments)

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Let a counter grow."""
        for each in self.instruments:
            each.add(metric, value, labels)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Give a gauge its value."""
        for each in self.instruments:
            each.set(metric, value, labels)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Count a value in its bucket."""
        for each in self.instruments:
            each.observe(metric, value, labels)


def _collector(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind is Kind.HISTOGRAM:
        return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.bounds)
    made = Counter if metric.kind is Kind.COUNTER else Gauge
    return made(metric.name, metric.help, metric.labels, registry=registry)
