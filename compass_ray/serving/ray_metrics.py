"""Export of the service's metrics through the metrics agents that Ray runs on every node.

Metric names are those of `metrics.definitions.METRICS` with Ray's prefix ``ray_``. A scrape of the endpoint's ``/metrics``
reaches one replica; the agents export all replicas, with Ray's labels. Requires a process that is connected to Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util import metrics

from compass_ray.serving.metrics.definitions import METRICS, NO_LABELS, Metric, MetricKind

PREFIX = "ray_"


class RayMetricsExporter:
    """Exports every metric to Ray; implements `exporters.MetricsExporter`."""

    def __init__(self) -> None:
        """Declare all metrics."""
        self._metrics: dict[str, Any] = {metric.name: _declare(metric) for metric in METRICS}

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Increase a counter. Ray rejects an increment of 0, so it is skipped."""
        if value > 0:
            self._metrics[metric.name].inc(value, tags=dict(labels))

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Set a gauge."""
        self._metrics[metric.name].set(value, tags=dict(labels))

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Add a value to a histogram."""
        self._metrics[metric.name].observe(value, tags=dict(labels))


def _declare(metric: Metric) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    if metric.kind is MetricKind.HISTOGRAM:
        return metrics.Histogram(metric.name, metric.help, list(metric.bounds), metric.labels)
    cls = metrics.Counter if metric.kind is MetricKind.COUNTER else metrics.Gauge
    return cls(metric.name, metric.help, metric.labels)
