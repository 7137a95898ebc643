"""Corrections with their prompts: stored if the prompt is known, deleted in time, and fair between keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from compass_ray.artifacts import ArtifactError, RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.monitoring import corrections as module
from compass_ray.monitoring.corrections import CORRECTIONS_FILE, CorrectionPair, read_pairs
from compass_ray.monitoring.feedback import count_without_prompt
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Feedback, Observation
from tests.unit.fakes import Clock, WordAssigner

DAY = 86_400.0
CORRECTION = Feedback("id-1", "bad", "Jibu sahihi ni Nairobi.", None, "abc", 1000.0)


def _monitor(run: RunDir, config: RunConfig, clock: Clock, retention: str = "text", days: float | None = 30.0) -> TrafficMonitor:
    drift = config.drift.model_copy(update={"retention": retention, "retention_days": days})
    return TrafficMonitor(run, config.model_copy(update={"drift": drift}), WordAssigner(), clock)


@pytest.fixture
def monitor(run: RunDir, config: RunConfig, clock: Clock) -> TrafficMonitor:
    clock.now = 1000.0
    made = _monitor(run, config, clock)
    made.record([Observation(f"id-{n}", "sw", f"Swali namba {n}", "v0001", 1.0, 1000.0) for n in range(5)])
    return made


def _pairs(run: RunDir, config: RunConfig, now: float = 1000.0) -> list[tuple[str, str, str]]:
    return [(pair.prompt, pair.correction, pair.key) for pair in read_pairs(run, config.drift, now)]


def test_a_correction_is_stored_with_its_prompt(monitor: TrafficMonitor, run: RunDir, config: RunConfig) -> None:
    monitor.record_feedback([CORRECTION, replace(CORRECTION, key=None), replace(CORRECTION, reply="id-2", correction=None)])
    assert sorted(_pairs(run, config)) == [
        ("Swali namba 1", CORRECTION.correction, ""),
        ("Swali namba 1", CORRECTION.correction, "abc"),
    ]
    assert {pair.language for pair in read_pairs(run, config.drift, 1000.0)} == {"sw"}
    assert count_without_prompt(run, "sw") == 0


def test_without_its_prompt_it_is_counted_and_not_stored(monitor: TrafficMonitor, run: RunDir, config: RunConfig) -> None:
    monitor.record([Observation(f"new-{n}", "sw", f"Swali jipya {n}", "v0001", 1.0, 1000.0) for n in range(100)])
    monitor.record_feedback([CORRECTION, replace(CORRECTION, reply="elsewhere")])
    assert _pairs(run, config) == []
    assert (count_without_prompt(run, "sw"), count_without_prompt(run, "de")) == (2, 1)


def test_later_feedback_replaces_it_and_without_a_correction_withdraws_it(
    monitor: TrafficMonitor, run: RunDir, config: RunConfig, clock: Clock
) -> None:
    monitor.record_feedback([CORRECTION])
    clock.now = 2000.0
    monitor.record_feedback([replace(CORRECTION, correction="Jibu jipya.", time=1500.0)])
    monitor.record_feedback([replace(CORRECTION, correction="Jibu la kale.", time=1200.0)])
    assert _pairs(run, config) == [("Swali namba 1", "Jibu jipya.", "abc")]
    _monitor(run, config, clock).record_feedback([replace(CORRECTION, rating="good", correction=None, time=1600.0)])
    assert _pairs(run, config) == []


def test_equal_texts_have_equal_ids_and_others_have_others(monitor: TrafficMonitor, run: RunDir, config: RunConfig) -> None:
    def stored(feedback: Feedback) -> CorrectionPair:
        monitor.record_feedback([feedback])
        (pair,) = read_pairs(run, config.drift, 1000.0)
        return pair

    first, other, again = (
        stored(replace(CORRECTION, correction=text, time=time)) for text, time in [("a", 1.0), ("b", 2.0), ("a", 3.0)]
    )
    assert first.id == again.id != other.id


@pytest.mark.parametrize("retention", ["none", "hash", "embedding"])
def test_only_the_setting_text_stores_it(run: RunDir, config: RunConfig, clock: Clock, retention: str) -> None:
    monitor = _monitor(run, config, clock, retention)
    monitor.record([Observation("id-1", "sw", "Swali namba 1", "v0001", 1.0, 1000.0)])
    assert monitor.record_feedback([CORRECTION]).stored == 1
    assert jsonl_log.read(run, CORRECTIONS_FILE) == []


def test_it_is_deleted_with_its_prompt_even_if_it_came_late(
    monitor: TrafficMonitor, run: RunDir, config: RunConfig, clock: Clock
) -> None:
    clock.now = 1000.0 + 20 * DAY
    monitor.record_feedback([replace(CORRECTION, time=clock.now)])
    assert len(_pairs(run, config, clock.now)) == 1
    clock.now = 1000.0 + 30 * DAY
    assert _pairs(run, config, clock.now) == []  # it is not read, although no monitor has deleted it yet
    monitor.status()
    assert jsonl_log.read(run, CORRECTIONS_FILE) == []
    assert "correction" in jsonl_log.read(run, "feedback.jsonl")[0]


def test_forbidden_texts_and_torn_lines_are_deleted_at_the_start(
    monitor: TrafficMonitor, run: RunDir, config: RunConfig, clock: Clock
) -> None:
    monitor.record_feedback([CORRECTION])
    file = Path(run.artifact("monitor").path) / CORRECTIONS_FILE
    file.write_bytes(file.read_bytes() + b'{"prompt": "Siri ya')
    _monitor(run, config, clock)
    assert b"Siri" not in file.read_bytes()
    assert len(_pairs(run, config)) == 1
    _monitor(run, config, clock, "hash")
    assert file.read_bytes() == b""


def test_a_failed_write_is_sent_again_and_counts_once(
    monitor: TrafficMonitor, run: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = jsonl_log.append

    def full(run: RunDir, file: str, lines: list[object]) -> None:
        if file == "feedback.jsonl":
            raise ArtifactError("no space left")
        append(run, file, lines)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(jsonl_log, "append", full)
        with pytest.raises(ArtifactError, match="no space"):
            monitor.record_feedback([CORRECTION])
    assert monitor.record_feedback([CORRECTION]).stored == 1
    assert len(_pairs(run, config)) == 1


def test_a_flood_displaces_no_other_key(run: RunDir, config: RunConfig, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 20)
    monitor = _monitor(run, config, clock)
    for number in range(100):
        monitor.record([Observation(f"id-{number}", "sw", f"Swali namba {number}", "v0001", 1.0, 1000.0)])
        feedback = replace(CORRECTION, reply=f"id-{number}", correction=f"Jibu {number}")
        monitor.record_feedback([feedback, *([replace(feedback, key=f"honest-{number}")] if number < 5 else [])])
    keys = Counter(key for _, _, key in _pairs(run, config))
    assert {key for key in keys if key != "abc"} == {f"honest-{number}" for number in range(5)}
    assert 15 <= keys["abc"] <= 40
    assert len(jsonl_log.read(run, CORRECTIONS_FILE)) <= 41


def test_pairs_are_bounded_in_bytes_and_every_client_keeps_some(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 20_000)
    monitor = TrafficMonitor(run, config, assigner, clock)
    monitor.record([Observation(f"id-{n}", "sw", f"Swali namba {n}", "v0001", 1.0, 1000.0) for n in range(60)])
    monitor.record_feedback([Feedback("id-0", None, "jibu langu", None, "one", 1000.0)])
    for n in range(1, 60):
        monitor.record_feedback([Feedback(f"id-{n}", None, "x" * 2000, None, "flood", 1000.0)])
        assert len(run.read_monitor("corrections.jsonl") or b"") <= 42_500
    assert "one" in {pair.key for pair in read_pairs(run, config.drift, 1000.0)}
