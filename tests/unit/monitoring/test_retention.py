"""Stored fields of prompts and feedback, and their deletion everywhere when they expire."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import registry
from compass_ray.artifacts import ArtifactError, RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.monitoring.retention import (
    FIELDS,
    KEY_FILE,
    KEY_VARIABLE,
    Retention,
    RetentionPeriod,
    RetentionPolicy,
    load_retention_policy,
)
from compass_ray.monitoring.window_store import read_window, window_table
from tests.unit.fakes import Clock, MakeAdapter, WordAssigner

DAY = 86_400.0
EVERY: list[Retention] = ["none", "hash", "embedding", "text"]


def _config(config: RunConfig, retention: str = "text", days: float | None = 30.0) -> RunConfig:
    drift = {"retention": retention, "retention_days": days}
    return config.model_copy(update={"drift": config.drift.model_copy(update=drift)})


@pytest.fixture(autouse=True)
def served(run: RunDir, clock: Clock, make_adapter: MakeAdapter) -> None:
    clock.now = 100 * DAY
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001", clock=clock)


def _prompt(number: int, clock: Clock, cluster: int = 0) -> Observation:
    return Observation(f"id-{number}", "sw", f"siri ya {number} kundi {cluster}", "v0001", 1.5, clock(), "abcdef")


def _feed(monitor: TrafficMonitor, clock: Clock, numbers: range, cluster: int = 0) -> None:
    monitor.record([_prompt(number, clock, cluster) for number in numbers])


def _held(run: RunDir) -> list[dict[str, object]]:
    """Every entry on disk, and every row of a window, with an erasable field."""
    entries: list[dict[str, object]] = []
    for event in jsonl_log.read(run, "traffic.jsonl"):
        entries += event["window"] if event["event"] == "snapshot" else [event]
    entries += jsonl_log.read(run, "feedback.jsonl") + jsonl_log.read(run, "corrections.jsonl")
    for file in run.monitor_files():
        if file.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(run.read_monitor(file) or b"")).to_pylist()
            entries += [{k: v for k, v in row.items() if v is not None and not str(v).startswith("sw-")} for row in rows]
    return [entry for entry in entries if FIELDS & entry.keys()]


def _text_on_disk(run: RunDir) -> bool:
    folder = Path(run.artifact("monitor").path)
    return any(b"siri ya" in path.read_bytes() for path in folder.rglob("*.jsonl*"))


@pytest.mark.parametrize("retention", EVERY)
def test_expired_prompts_are_deleted_and_drift_detection_continues(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, retention: str
) -> None:
    monitor = TrafficMonitor(run, _config(config, retention), assigner, clock)
    _feed(monitor, clock, range(100))
    _feed(monitor, clock, range(100, 400), cluster=2)
    (ready,) = monitor.ready()
    monitor.record_feedback([Feedback("id-399", "bad", "siri ya jibu", "siri ya neno", "abcdef", clock())])
    before = monitor.status()
    assert bool(_held(run)) == (retention != "none")
    clock.now += 30 * DAY
    monitor.erase_expired()
    assert _held(run) == []
    assert not _text_on_disk(run)
    assert monitor.ready() == [ready]
    assert set(read_window(run, ready)["cluster"].to_pylist()) == {2}
    assert monitor.status() == before
    assert monitor.status()["languages"]["sw"]["ratings"] == {"good": 0, "bad": 1}
    again = TrafficMonitor(run, _config(config, retention), assigner, clock)
    assert again.status() == before
    _feed(again, clock, range(400, 420), cluster=2)
    assert again.status()["languages"]["sw"]["last_check"]["prompts"] == 420


@given(days=st.floats(0.01, 60), ages=st.lists(st.floats(0, 100), min_size=1, max_size=8), step=st.floats(0, 100))
def test_nothing_is_stored_longer_than_its_days_or_deleted_long_before(days: float, ages: list[float], step: float) -> None:
    age, policy, now = RetentionPeriod.from_days(days), RetentionPolicy("text", b"x"), 200 * DAY
    horizon = age.cutoff(now)
    for back in ages:
        entry = {"time": now - back * DAY, "prompt": "siri"}
        stored = "prompt" in policy.redact(entry, horizon)
        age_at_next_sweep = now + age.sweep_interval - entry["time"]
        assert not stored or age_at_next_sweep <= days * DAY * (1 + 1e-9)
        assert (
            stored or now - entry["time"] >= days * DAY * (23 / 24) * (1 - 1e-9) or days * DAY - back * DAY <= 3600 * (1 + 1e-9)
        )


def test_at_no_sweep_is_data_older_than_its_days(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    monitor = TrafficMonitor(run, _config(config, days=0.5), assigner, clock)
    counts = []
    for step in range(120):
        clock.now += 0.33 * 1800  # of a sweep interval
        monitor.status()
        counts.append(len(_held(run)))
        assert all(clock() - float(str(entry["time"])) <= 0.5 * DAY for entry in _held(run))
        if step < 10:
            _feed(monitor, clock, range(step, step + 1))
    assert max(counts) == 10
    assert counts[-1] == 0


def test_in_a_bucket_it_is_the_same(s3_uri: str, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    run = RunDir(s3_uri)
    monitor = TrafficMonitor(run, _config(config), assigner, clock)
    _feed(monitor, clock, range(10))
    monitor.record_feedback([Feedback("id-1", "bad", "siri ya jibu", None, "abcdef", clock())])
    file = monitor.window_store.write(monitor.log.language_state("sw"))
    assert len(_held(run)) == 22
    clock.now += 30 * DAY
    monitor.erase_expired()
    assert _held(run) == []
    assert file in run.monitor_files()
    assert TrafficMonitor(run, _config(config), assigner, clock).status() == monitor.status()


def test_only_what_is_too_old_goes(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    monitor = TrafficMonitor(run, _config(config), assigner, clock)
    _feed(monitor, clock, range(10))
    clock.now += 20 * DAY
    _feed(monitor, clock, range(10, 15))
    clock.now += 11 * DAY
    monitor.status()
    assert sorted(str(entry["id"]) for entry in _held(run)) == [f"id-{n}" for n in range(10, 15)]
    assert monitor.status()["languages"]["sw"]["prompts"] == 15


def test_prompts_that_left_their_window_are_erased_too(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    monitor = TrafficMonitor(run, _config(config), assigner, clock)
    _feed(monitor, clock, range(50))
    clock.now += 29 * DAY
    _feed(monitor, clock, range(50, 150))
    assert len(_held(run)) == 150
    clock.now += 2 * DAY
    monitor.ready()
    monitor.status()
    assert len(_held(run)) == 100


def test_without_a_limit_a_prompt_is_stored_as_long_as_its_window(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    monitor = TrafficMonitor(run, _config(config, days=None), assigner, clock)
    _feed(monitor, clock, range(10))
    clock.now += 10_000 * DAY
    monitor.status()
    assert len(_held(run)) == 10


def test_a_stricter_setting_applies_to_stored_data(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    monitor = TrafficMonitor(run, _config(config, "text"), assigner, clock)
    _feed(monitor, clock, range(100))
    _feed(monitor, clock, range(100, 400), cluster=2)
    monitor.record_feedback([Feedback("id-399", "bad", "siri ya jibu", None, "abcdef", clock())])
    (ready,) = monitor.ready()
    TrafficMonitor(run, _config(config, "hash"), assigner, clock)
    assert not _text_on_disk(run)
    assert read_window(run, ready)["prompt"].to_pylist() == [None] * 100
    assert {tuple(sorted(FIELDS & entry.keys())) for entry in _held(run)} == {("key", "row_id"), ("row_id",), ("key",)}
    TrafficMonitor(run, _config(config, "none"), assigner, clock)
    assert _held(run) == []


def test_partial_files_of_a_killed_monitor_are_deleted_at_the_start(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    _feed(TrafficMonitor(run, _config(config, "text"), assigner, clock), clock, range(5))
    folder = Path(run.artifact("monitor").path)
    (folder / "traffic.jsonl.1234.partial").write_text('{"prompt": "siri ya kale"}')
    with (folder / "traffic.jsonl").open("a") as log:
        log.write('{"event": "prompt", "prompt": "siri ya')
    monitor = TrafficMonitor(run, _config(config, "none"), assigner, clock)
    assert not _text_on_disk(run)
    assert monitor.status()["languages"]["sw"]["prompts"] == 5


def test_a_damaged_window_file_is_deleted(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    run.write_monitor("windows/sw-000000100.parquet", b"siri ya kale")
    buffer = io.BytesIO()
    pq.write_table(window_table("sw", [{"cluster": 1, "coarse": 1, "prompt": "siri ya zamani"}] * 50), buffer)
    run.write_monitor("windows/sw-000000200.parquet", b"PAR1" + b"\xff" * 40 + buffer.getvalue()[44:])
    run.write_monitor("feedback.jsonl", b'{"reply": "r", "by": "b", "comment": "siri ya kale", "time": 1.0}\n')
    TrafficMonitor(run, _config(config), assigner, clock)
    assert not [file for file in run.monitor_files() if file.startswith("windows/")]
    assert not _text_on_disk(run), "later files are erased too"


def test_a_full_disk_delays_deletion_but_blocks_no_traffic(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = TrafficMonitor(run, _config(config), assigner, clock)
    _feed(monitor, clock, range(5))
    clock.now += 31 * DAY

    def full(*_: object) -> None:
        raise ArtifactError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(jsonl_log, "rewrite", full)
        monitor.status()
        assert len(_held(run)) == 5
    monitor.status()
    assert _held(run) == []


@pytest.mark.parametrize("killed_at", range(1, 6))
def test_a_deletion_that_is_killed_at_any_write_is_finished_by_the_next_monitor(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monitor = TrafficMonitor(run, _config(config), assigner, clock)
    _feed(monitor, clock, range(100))
    _feed(monitor, clock, range(100, 400), cluster=2)
    monitor.record_feedback([Feedback("id-399", "bad", "siri ya jibu", None, None, clock())])
    status, ready = monitor.status(), monitor.ready()
    clock.now += 31 * DAY
    left, write = [killed_at], RunDir.write_monitor

    def dying(self: RunDir, file: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise KeyboardInterrupt
        write(self, file, data)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_monitor", dying)
        try:
            monitor.erase_expired()
        except KeyboardInterrupt:
            assert _held(run)
    again = TrafficMonitor(run, _config(config), assigner, clock)
    assert _held(run) == []
    assert (again.status(), again.ready()) == (status, ready)


def test_a_future_time_does_not_extend_storage(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    monitor = TrafficMonitor(run, _config(config), assigner, clock)
    ahead = Observation("id-1", "sw", "siri ya kesho 0", "v0001", None, clock() + 1000 * DAY)
    monitor.record([ahead])
    monitor.record_feedback([Feedback("id-1", None, "siri ya jibu", None, None, clock() + 1000 * DAY)])
    clock.now += 30 * DAY
    monitor.status()
    assert _held(run) == []


def test_ids_outlive_the_deleted_data(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    batch = [_prompt(number, clock) for number in range(150)]
    TrafficMonitor(run, _config(config), assigner, clock).record(batch)
    clock.now += 31 * DAY
    TrafficMonitor(run, _config(config), assigner, clock).status()
    assert TrafficMonitor(run, _config(config), assigner, clock).record(batch).duplicates == 150


def test_hashes_distinguish_prompts_and_need_the_secret(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = load_retention_policy(run, "hash"), RetentionPolicy("hash", b"another")
    assert one.keyed_hash("sw", "habari") == load_retention_policy(run, "embedding").keyed_hash("sw", "habari")
    assert len({one.keyed_hash("sw", "habari"), one.keyed_hash("sw", "habari "), one.keyed_hash("de", "habari")}) == 3
    assert one.keyed_hash("sw", "habari") != other.keyed_hash("sw", "habari")
    assert (run.read_monitor(KEY_FILE) or b"") != b""
    monkeypatch.setenv(KEY_VARIABLE, "another")
    assert load_retention_policy(run, "hash").keyed_hash("sw", "habari") == other.keyed_hash("sw", "habari")


@pytest.mark.parametrize("retention", EVERY)
def test_a_policy_writes_only_fields_that_it_would_not_redact(retention: Retention) -> None:
    policy = RetentionPolicy(retention, b"x")
    fields = policy.prompt_fields("sw", "habari", np.ones(4, np.float32), "abcdef")
    fields |= policy.feedback_fields("jibu", "neno", "abcdef")
    fields |= policy.pair_fields("id-1", "habari", "jibu", "abcdef")
    assert policy.redact({**fields, "time": 0.0}, -1.0) == {**fields, "time": 0.0}
    assert policy.redact({**fields, "time": 0.0}, 1.0) == {"time": 0.0}
