"""The endpoint's numbers at the agents of Ray's nodes, under the names that the dashboard asks for."""

from __future__ import annotations

import threading
import time
import urllib.request
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from compass_ray.serving.metrics.definitions import METRICS
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.ray_metrics import PREFIX, RayMetricsExporter
from tests.unit.fakes import LANGUAGE_STATUS

pytestmark = pytest.mark.slow  # agents report every ten seconds


def _exported() -> set[str]:
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {sample.name for family in families for sample in family.samples}


def _everything_happens(statistics: RequestStatistics) -> None:
    statistics.record_start()
    tokens = {"prompt_tokens": 3, "completion_tokens": 4}
    statistics.record_completion(language="sw", adapter="sw@v0001", seconds=0.2, first_token_seconds=0.1, **tokens)
    statistics.record_fallback()
    statistics.record_not_stored("sw")
    statistics.record_feedback("good")
    statistics.record_shadow(adapter="sw@v0002", mean_nll=1.0, seconds=0.5, failed=False)
    monitor: dict[str, Any] = {"languages": {"sw": LANGUAGE_STATUS}, "damaged_lines": {"traffic.jsonl": 1}}
    statistics.export_monitor_status(monitor, {"waiting": 1, "dropped": 2})
    statistics.export_parts({"monitor": monitor, "controller": {"failed": "no run"}}, unavailable=1)


def test_the_agents_export_every_metric_by_its_name(ray_cluster: None) -> None:
    _everything_happens(RequestStatistics(time.time, [RayMetricsExporter()]))
    wanted = {f"{PREFIX}{name}" for metric in METRICS for name in metric.series_names}
    deadline = time.monotonic() + 60
    while not wanted <= _exported() and time.monotonic() < deadline:
        threading.Event().wait(0.5)  # what is waited for is in other processes
    assert sorted(wanted - _exported()) == []
