"""The monitor's files stay short, also if prompts are long, and lose nothing that is still needed."""

from __future__ import annotations

import pytest

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.monitoring import traffic_log as module
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Observation
from tests.unit.fakes import Clock, MakeAdapter, WordAssigner


@pytest.fixture(autouse=True)
def served(run: RunDir, clock: Clock, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001", clock=clock)


def test_long_prompts_do_not_grow_the_log_beyond_twice_its_windows(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ADDED_BYTES", 20_000)
    config = config.model_copy(update={"drift": config.drift.model_copy(update={"window": 10})})
    monitor, most = TrafficMonitor(run, config, assigner, clock), 0
    for n in range(60):
        monitor.record([Observation(f"id-{n}", "sw", f"{n} " + "swali " * 500 + "0", "v0001", 1.0, 900.0)])
        most = max(most, len(run.read_monitor("traffic.jsonl") or b""))
    assert most <= 2 * 10 * 3_400 + 20_000
    assert TrafficMonitor(run, config, assigner, clock).status() == monitor.status()


def test_the_last_checks_stay(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHECKS", 10)
    monitor = TrafficMonitor(run, config, assigner, clock)
    monitor.log._max_length = 10
    jsonl_log.append(run, "checks.jsonl", [{"damaged": "siri"}])
    for start in range(0, 600, 20):
        monitor.record([Observation(f"id-{n}", "sw", f"swali {n} 0", "v0001", 1.0, 900.0) for n in range(start, start + 20)])
        assert len(jsonl_log.read(run, "checks.jsonl")) <= 21
    stored = [check["prompts"] for check in jsonl_log.read(run, "checks.jsonl")]
    assert stored == list(range(600 - 20 * (len(stored) - 1), 601, 20))
    assert "checks.jsonl.rejected" not in run.monitor_files()
    TrafficMonitor(run, config, assigner, clock)
    assert [check["prompts"] for check in jsonl_log.read(run, "checks.jsonl")] == stored, "none is published again"
