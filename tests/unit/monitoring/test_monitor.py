"""The monitor: alarms, ready windows, and restarts after a kill at any prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from compass_ray import registry
from compass_ray.artifacts import ArtifactError, RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Observation
from compass_ray.monitoring.window_store import read_window
from tests.unit.fakes import Clock, MakeAdapter, WordAssigner

OLD, NEW = (0, 1), (2, 3)
"""Clusters of traffic like the references, and of traffic after a shift."""


class Stream:
    """Prompts of given clusters with unique ids."""

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self.clock = clock
        self.rng = np.random.default_rng(seed)
        self.sent = 0

    def take(self, count: int, clusters: Sequence[int], language: str = "sw") -> list[Observation]:
        return [self._one(int(self.rng.choice(clusters)), language) for _ in range(count)]

    def _one(self, cluster: int, language: str) -> Observation:
        self.sent += 1
        prompt = f"swali namba {self.sent} kundi {cluster}"
        return Observation(f"id-{self.sent}", language, prompt, "v0001", 1.5, self.clock())


@pytest.fixture
def stream(clock: Clock) -> Stream:
    return Stream(clock)


@pytest.fixture
def monitor(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, make_adapter: MakeAdapter) -> TrafficMonitor:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001", clock=clock)
    return TrafficMonitor(run, config, assigner, clock)


def _drifts(run: RunDir) -> list[jsonl_log.JsonRecord]:
    return [line for line in jsonl_log.read(run, "decisions.jsonl") if line["kind"] == "drift"]


def _feed(monitor: TrafficMonitor, observations: Sequence[Observation], batch: int = 7) -> None:
    for start in range(0, len(observations), batch):
        monitor.record(observations[start : start + batch])


def test_traffic_like_the_reference_never_alarms(monitor: TrafficMonitor, stream: Stream, run: RunDir) -> None:
    _feed(monitor, stream.take(1000, OLD))
    checks = jsonl_log.read(run, "checks.jsonl")
    assert [line["prompts"] for line in checks] == list(range(100, 1001, 20))
    assert _drifts(run) == []
    assert monitor.ready() == []


def test_shifted_traffic_alarms_and_then_collects_a_fresh_window(
    monitor: TrafficMonitor, stream: Stream, run: RunDir, clock: Clock
) -> None:
    _feed(monitor, stream.take(200, OLD))
    clock.now = 2000.0
    _feed(monitor, stream.take(300, NEW))
    (drift,) = _drifts(run)
    assert (drift["language"], drift["from"], drift["time"]) == ("sw", "v0001", 2000.0)
    assert 200 < drift["prompts"] <= 300
    assert "bits" in drift["reason"]
    (ready,) = monitor.ready()
    window = read_window(run, ready).to_pydict()
    assert ready.prompts == len(window["prompt"]) == 100
    assert set(window["cluster"]) <= set(NEW)
    first = int(window["prompt"][0].split()[2])
    assert first == drift["prompts"] + 1


def test_batching_changes_nothing(
    run: RunDir,
    config: RunConfig,
    assigner: WordAssigner,
    clock: Clock,
    make_adapter: MakeAdapter,
    tmp_path: Path,
) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001", clock=clock)
    copies = []
    for batch in (1, 13, 500):
        monitor = TrafficMonitor(run, config, assigner, clock)
        stream = Stream(clock)
        _feed(monitor, [*stream.take(150, OLD), *stream.take(250, NEW)], batch)
        copies.append((jsonl_log.read(run, "checks.jsonl"), monitor.status(), _drifts(run)))
        for file in ("traffic.jsonl", "checks.jsonl", "decisions.jsonl"):
            run.write_monitor(file, b"")
    assert copies[0] == copies[1] == copies[2]


@pytest.mark.parametrize("killed_after", [1, 99, 100, 119, 120, 220, 260, 340, 390])
def test_a_killed_monitor_is_rebuilt_in_the_same_state(
    monitor: TrafficMonitor,
    stream: Stream,
    run: RunDir,
    config: RunConfig,
    assigner: WordAssigner,
    clock: Clock,
    killed_after: int,
) -> None:
    traffic = [*stream.take(150, OLD), *stream.take(250, NEW)]
    _feed(monitor, traffic[:killed_after])
    before = monitor.status()
    again = TrafficMonitor(run, config, assigner, clock)
    assert again.status() == before
    assert again.ready() == monitor.ready()
    _feed(again, traffic[killed_after:])
    assert len(_drifts(run)) == 1
    prompts = [line["prompts"] for line in jsonl_log.read(run, "checks.jsonl")]
    assert prompts == list(range(100, 401, 20))


def test_lines_lost_between_log_and_publication_are_published_on_rebuild(
    monitor: TrafficMonitor,
    stream: Stream,
    run: RunDir,
    config: RunConfig,
    assigner: WordAssigner,
    clock: Clock,
) -> None:
    _feed(monitor, [*stream.take(150, OLD), *stream.take(200, NEW)])
    checks, decisions = jsonl_log.read(run, "checks.jsonl"), jsonl_log.read(run, "decisions.jsonl")
    jsonl_log.rewrite(run, "checks.jsonl", checks[:-2])
    jsonl_log.rewrite(run, "decisions.jsonl", [line for line in decisions if line["kind"] != "drift"])
    TrafficMonitor(run, config, assigner, clock)
    assert jsonl_log.read(run, "checks.jsonl") == checks
    assert jsonl_log.read(run, "decisions.jsonl") == decisions


def test_duplicates_count_once(
    monitor: TrafficMonitor, stream: Stream, run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    batch = stream.take(10, OLD)
    assert monitor.record(batch).stored == 10
    assert monitor.record(batch).duplicates == 10
    again = TrafficMonitor(run, config, assigner, clock)
    assert again.record([*batch, *stream.take(1, OLD)]).stored == 1
    assert again.status()["languages"]["sw"]["prompts"] == 11


def test_invalid_observations_are_rejected_and_the_rest_is_recorded(
    monitor: TrafficMonitor, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    good = Observation("a", "sw", "habari 0", "v0001", float("nan"), 1.0)
    bad = [
        Observation("b", "xx", "hello 0", None, None, 1.0),
        Observation("c", "sw", " \n", None, None, 1.0),
        Observation("d", "sw", None, None, None, 1.0),  # type: ignore[arg-type]
        Observation("e", "sw", "broken 0", None, None, 1.0),
        Observation("f", "sw", "habari 0", None, None, float("inf")),
        Observation("h", "sw", "overflow 0", None, None, 1.0),
    ]
    odd = Observation("g", "sw", "surrogate \ud800 \x00 0", None, None, 1.0)
    done = monitor.record([good, *bad, odd])
    assert (done.stored, done.rejected) == (2, 6)
    assert "monitor: prompt of reply h not assigned: RuntimeError" in caplog.text
    assert "overflow" not in caplog.text
    assert monitor.status()["languages"]["sw"]["mean_nll"] is None


@pytest.mark.parametrize(
    ("retention", "prompts", "embeddings", "ids"),
    [
        ("text", True, False, True),
        ("embedding", False, True, True),
        ("hash", False, False, True),
        ("none", False, False, False),
    ],
)
def test_each_retention_setting_stores_its_fields_and_drift_works_with_all(
    run: RunDir,
    config: RunConfig,
    assigner: WordAssigner,
    clock: Clock,
    stream: Stream,
    make_adapter: MakeAdapter,
    retention: str,
    prompts: bool,
    embeddings: bool,
    ids: bool,
) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001", clock=clock)
    settings = config.model_copy(update={"drift": config.drift.model_copy(update={"retention": retention})})
    monitor = TrafficMonitor(run, settings, assigner, clock)
    _feed(monitor, [*stream.take(100, OLD), *stream.take(300, NEW)])
    (ready,) = monitor.ready()
    window = read_window(run, ready).to_pydict()
    assert (window["prompt"][0] is not None) == prompts
    assert (window["embedding"][0] is not None) == embeddings
    assert window["row_id"][0].startswith("sw-") != ids
    assert ("swali" in (run.read_monitor("traffic.jsonl") or b"").decode()) == prompts


def test_a_reset_starts_over_with_the_new_reference(
    monitor: TrafficMonitor, stream: Stream, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    _feed(monitor, [*stream.take(100, OLD), *stream.take(300, NEW)])
    make_adapter("sw", "v0002", guide=(0, 0, 50, 50, 0))
    registry.promote(run, "sw", "v0002", clock=clock)
    monitor.reset_reference("sw", "v0002")
    assert monitor.ready() == []
    _feed(monitor, stream.take(500, NEW))
    assert len(_drifts(run)) == 1
    last = jsonl_log.read(run, "checks.jsonl")[-1]
    assert (last["version"], last["drifted"]) == ("v0002", False)


def test_a_version_promoted_elsewhere_is_followed(
    monitor: TrafficMonitor, stream: Stream, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    _feed(monitor, stream.take(120, OLD))
    make_adapter("sw", "v0002", guide=(0, 0, 50, 50, 0))
    registry.promote(run, "sw", "v0002", clock=clock)
    _feed(monitor, stream.take(20, OLD))
    last = jsonl_log.read(run, "checks.jsonl")[-1]
    assert (last["version"], last["drifted"]) == ("v0002", True)


def test_a_discarded_window_is_never_ready_again_and_the_cooldown_doubles(
    monitor: TrafficMonitor, stream: Stream, run: RunDir
) -> None:
    _feed(monitor, [*stream.take(100, OLD), *stream.take(300, NEW)])
    (first,) = monitor.ready()
    monitor.discard_window("sw")
    monitor.discard_window("sw")
    assert monitor.ready() == []
    _feed(monitor, stream.take(1000, NEW))
    (second,) = monitor.ready()
    assert second.file != first.file
    monitor.discard_window("sw")
    _feed(monitor, stream.take(1000, NEW))
    prompts = [line["prompts"] for line in _drifts(run)]
    assert len(prompts) == 3
    assert prompts[2] - prompts[1] > prompts[1] - prompts[0]


def test_a_language_without_an_adapter_is_recorded_and_not_checked(monitor: TrafficMonitor, stream: Stream, run: RunDir) -> None:
    _feed(monitor, stream.take(300, NEW, "de"))
    assert monitor.status()["languages"]["de"]["prompts"] == 300
    assert jsonl_log.read(run, "checks.jsonl") == []


def test_a_reference_of_another_clustering_stops_checks_but_not_traffic(
    monitor: TrafficMonitor, stream: Stream, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    make_adapter("sw", "v0002", guide=(5, 5, 0))
    registry.promote(run, "sw", "v0002", clock=clock)
    _feed(monitor, stream.take(200, NEW))
    assert monitor.status()["languages"]["sw"]["prompts"] == 200


def test_the_log_stays_short_and_compaction_loses_nothing(
    monitor: TrafficMonitor,
    stream: Stream,
    run: RunDir,
    config: RunConfig,
    assigner: WordAssigner,
    clock: Clock,
) -> None:
    _feed(monitor, stream.take(4000, OLD), batch=64)
    assert len(jsonl_log.read(run, "traffic.jsonl")) <= 1000 + 4 * 100 * 2 + 64
    assert TrafficMonitor(run, config, assigner, clock).status() == monitor.status()
    assert len(jsonl_log.read(run, "checks.jsonl")) == (4000 - 100) // 20 + 1


def test_a_failed_write_is_not_acknowledged(monitor: TrafficMonitor, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    _feed(monitor, stream.take(10, OLD))

    def full(*_: object) -> None:
        raise ArtifactError("no space left")

    batch = stream.take(5, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(jsonl_log, "append", full)
        with pytest.raises(ArtifactError, match="no space"):
            monitor.record(batch)
    assert monitor.status()["languages"]["sw"]["prompts"] == 10
    assert monitor.record(batch).stored == 5


def test_if_a_window_cannot_be_written_the_prompts_can_be_sent_again(
    monitor: TrafficMonitor, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    _feed(monitor, [*stream.take(100, OLD), *stream.take(100, NEW)], 50)
    last = stream.take(200, NEW)

    def full(*_: object) -> None:
        raise ArtifactError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_monitor", full)
        with pytest.raises(ArtifactError, match="no space"):
            monitor.record(last)
    assert monitor.status()["languages"]["sw"]["prompts"] == 200
    assert monitor.record(last).stored == 200
    assert len(monitor.ready()) == 1


def test_a_damaged_live_pointer_stops_no_traffic_and_no_check(monitor: TrafficMonitor, stream: Stream, run: RunDir) -> None:
    _feed(monitor, stream.take(120, OLD))
    (pointer,) = Path(run.path).rglob("live/sw.json")
    pointer.write_bytes(b"{")
    _feed(monitor, stream.take(20, OLD))
    assert jsonl_log.read(run, "checks.jsonl")[-1]["prompts"] == 140


def test_the_status_has_the_checks_over_time_and_a_rebuilt_one_too(
    monitor: TrafficMonitor, stream: Stream, config: RunConfig, run: RunDir, assigner: WordAssigner, clock: Clock
) -> None:
    _feed(monitor, stream.take(3000, OLD), 64)
    checks = monitor.status()["checks"]
    assert set(checks) == {"sw"}
    assert checks["sw"]["prompts"] == list(range(3000 - 99 * 20, 3001, 20))
    lines = jsonl_log.read(run, "checks.jsonl")[-100:]
    assert checks["sw"]["divergence"] == [round(line["divergence"], 4) for line in lines]
    assert TrafficMonitor(run, config, assigner, clock).status()["checks"] == checks


def test_a_language_outside_the_run_cannot_be_reset(monitor: TrafficMonitor) -> None:
    with pytest.raises(ValueError, match="not monitored; the run's languages are sw, de"):
        monitor.reset_reference("fr", "v0001")
