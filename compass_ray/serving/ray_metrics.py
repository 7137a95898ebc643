"""The service's numbers by way of the agents that Ray runs on every node.

Key property: the names are those of `metrics.METRICS` with Ray's prefix ``ray_``. A scrape of the endpoint's ``/metrics``
reaches whichever replica answers it; the agents have the numbers of all replicas, each with the labels Ray adds. It needs a
process that is connected to Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util import metrics

from compass_ray.serving.metrics.definitions import METRICS, NO_LABELS, Metric, MetricKind

PREFIX = "ray_"


class RayMetricsExporter:
    """Hands every number to Ray; satisfies `instruments.Instruments`."""

    def __init__(self) -> None:
        """Declare all metrics."""
        self._metrics: dict[str, Any] = {metric.name: _declare(metric) for metric in METRICS}

    def add(self, metric: Metric, value: float = 1.0, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Let a counter grow; Ray's refuse to be grown by nothing."""
        if value > 0:
            self._metrics[metric.name].inc(value, tags=dict(labels))

    def set(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Give a gauge its value."""
        self._metrics[metric.name].set(value, tags=dict(labels))

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Count a value in its bucket."""
        self._metrics[metric.name].observe(value, tags=dict(labels))


def _declare(metric: Metric) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    if metric.kind is MetricKind.HISTOGRAM:
        return metrics.Histogram(metric.name, metric.help, list(metric.bounds), metric.labels)
    made = metrics.Counter if metric.kind is MetricKind.COUNTER else metrics.Gauge
    return made(metric.name, metric.help, metric.labels)
