"""Who takes the service's numbers: Prometheus's own client, and several of such at once.

Key property: all are made from the one table, `metrics.METRICS`; in `ray_metrics` so are those that Ray's nodes export.
It counts nothing by itself: `statistics` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

from compass_ray.serving.metrics.definitions import METRICS, NO_LABELS, Metric, MetricKind

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Of `PrometheusInstruments.exposition`."""


class MetricsExporter(Protocol):
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


class PrometheusExporter:
    """The numbers of this process, in a registry of their own."""

    def __init__(self) -> None:
        """Start at nought, with no second series beside each that says when it began."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {metric.name: _create_collector(metric, self.registry) for metric in METRICS}

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
        made = self._metrics[metric.name]
        return made.labels(**labels) if metric.labels else made


class MultiExporter:
    """Passes every number on to each of several."""

    def __init__(self, instruments: Sequence[MetricsExporter]) -> None:
        """Take them together."""
        self.exporters = tuple(instruments)

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Let a counter grow."""
        for each in self.exporters:
            each.add(metric, value, labels)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Give a gauge its value."""
        for each in self.exporters:
            each.set(metric, value, labels)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Count a value in its bucket."""
        for each in self.exporters:
            each.observe(metric, value, labels)


def _create_collector(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind is MetricKind.HISTOGRAM:
        return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.bounds)
    made = Counter if metric.kind is MetricKind.COUNTER else Gauge
    return made(metric.name, metric.help, metric.labels, registry=registry)
