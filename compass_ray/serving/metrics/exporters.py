"""Metric exporters: the protocol, an exporter for Prometheus text, and a fan-out to several exporters.

All are built from the one table `definitions.METRICS`; so is `ray_metrics`. `request_stats` does the counting.
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
"""Of `PrometheusExporter.exposition`."""


class MetricsExporter(Protocol):
    """Receives the values of `METRICS`. Never blocks."""

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Increase a counter."""
        ...

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Set a gauge."""
        ...

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Add a value to a histogram."""
        ...


class PrometheusExporter:
    """The metrics of this process in a separate Prometheus registry."""

    def __init__(self) -> None:
        """Start at zero, without a ``_created`` series for each metric."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {metric.name: _create_collector(metric, self.registry) for metric in METRICS}

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Increase a counter."""
        self._series(metric, labels).inc(value)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Set a gauge."""
        self._series(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Add a value to a histogram."""
        self._series(metric, labels).observe(value)

    def exposition(self) -> bytes:
        """All metrics in Prometheus text format, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _series(self, metric: Metric, labels: Mapping[str, str]) -> Any:
        collector = self._metrics[metric.name]
        return collector.labels(**labels) if metric.labels else collector


class MultiExporter:
    """Forwards every value to several exporters."""

    def __init__(self, exporters: Sequence[MetricsExporter]) -> None:
        """Combine ``exporters``."""
        self.exporters = tuple(exporters)

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Increase a counter."""
        for exporter in self.exporters:
            exporter.add(metric, value, labels)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Set a gauge."""
        for exporter in self.exporters:
            exporter.set(metric, value, labels)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Add a value to a histogram."""
        for exporter in self.exporters:
            exporter.observe(metric, value, labels)


def _create_collector(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind is MetricKind.HISTOGRAM:
        return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.bounds)
    cls = Counter if metric.kind is MetricKind.COUNTER else Gauge
    return cls(metric.name, metric.help, metric.labels, registry=registry)
