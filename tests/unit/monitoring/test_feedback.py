"""Feedback on replies: durable, counted once, and the newest of a client counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compass_ray.artifacts import ArtifactError, RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.monitoring import feedback as module
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Feedback, Observation
from tests.unit.fakes import Clock, WordAssigner

GOOD = Feedback("id-1", "good", None, None, "abc", 10.0)


@pytest.fixture
def monitor(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> TrafficMonitor:
    made = TrafficMonitor(run, config, assigner, clock)
    made.record([Observation(f"id-{n}", "sw", f"habari {n}", "v0001", 1.0, 1.0) for n in range(3)])
    return made


def _lines(run: RunDir) -> list[dict[str, Any]]:
    return jsonl_log.read(run, "feedback.jsonl")


def _ratings(monitor: TrafficMonitor) -> dict[str, int]:
    found: dict[str, int] = monitor.status()["languages"]["sw"]["ratings"]
    return found


def test_it_is_stored_with_the_language_and_version_of_its_reply(monitor: TrafficMonitor, run: RunDir) -> None:
    feedback = replace(GOOD, correction="nzuri sana", comment="asante")
    assert monitor.record_feedback([feedback]).stored == 1
    expected = {"reply": "id-1", "language": "sw", "version": "v0001", "rating": "good", "time": 10.0}
    (line,) = _lines(run)
    assert line.pop("by") not in ("abc", "")
    assert line == {**expected, "correction": "nzuri sana", "comment": "asante", "key": "abc", "counted": True}


def test_it_counts_once_and_after_a_kill_too(
    monitor: TrafficMonitor, run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    assert monitor.record_feedback([GOOD, GOOD]).duplicates == 1
    again = TrafficMonitor(run, config, assigner, clock)
    assert again.record_feedback([GOOD]).duplicates == 1
    assert _ratings(again) == _ratings(monitor) == {"good": 1, "bad": 0}
    assert len(_lines(run)) == 1


def test_the_newest_of_a_client_counts_and_clients_are_distinguished(monitor: TrafficMonitor) -> None:
    bad = replace(GOOD, rating="bad", time=20.0)
    monitor.record_feedback([GOOD, bad])
    monitor.record_feedback([GOOD])
    assert _ratings(monitor) == {"good": 0, "bad": 1}
    monitor.record_feedback([replace(GOOD, key="xyz")])
    assert _ratings(monitor) == {"good": 1, "bad": 1}


def test_clients_of_one_reply_are_distinguished_but_not_tracked_across_replies(monitor: TrafficMonitor, run: RunDir) -> None:
    monitor.record_feedback([GOOD, replace(GOOD, key="xyz"), replace(GOOD, reply="id-2"), replace(GOOD, key=None)])
    assert len({line["by"] for line in _lines(run)}) == 4


def test_feedback_on_an_unknown_reply_is_stored_without_a_language(monitor: TrafficMonitor, run: RunDir) -> None:
    assert monitor.record_feedback([replace(GOOD, reply="chatcmpl-elsewhere")]).stored == 1
    assert _lines(run)[0]["language"] is None
    assert _ratings(monitor) == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"reply": ""},
        {"reply": "x" * 1000},
        {"rating": "perfect"},
        {"rating": None},
        {"time": float("nan")},
        {"correction": 7},
        {"key": 7},
    ],
)
def test_invalid_feedback_is_rejected(monitor: TrafficMonitor, run: RunDir, bad: dict[str, Any]) -> None:
    done = monitor.record_feedback([replace(GOOD, **bad), replace(GOOD, reply="id-2")])
    assert (done.stored, done.rejected) == (1, 1)
    assert len(_lines(run)) == 1


def test_invalid_unicode_is_replaced_and_text_is_truncated(monitor: TrafficMonitor, run: RunDir) -> None:
    monitor.record_feedback([replace(GOOD, comment="\ud800" + "x" * 100_000)])
    assert _lines(run)[0]["comment"].startswith("�x")
    assert len(_lines(run)[0]["comment"]) == 8000


def test_the_file_stays_short(monitor: TrafficMonitor, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 10)
    for number in range(100):
        monitor.record_feedback([replace(GOOD, reply="id-1", time=float(number), key=str(number))])
    assert 10 <= len(_lines(run)) <= 20
    assert _ratings(monitor) == {"good": 10, "bad": 0}


def test_a_failed_write_is_not_acknowledged(monitor: TrafficMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ArtifactError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(jsonl_log, "append", full)
        with pytest.raises(ArtifactError, match="no space"):
            monitor.record_feedback([GOOD])
    assert _ratings(monitor) == {}
    assert monitor.record_feedback([GOOD]).stored == 1


def _flood(count: int, client: str = "flood", text: str | None = None) -> list[Feedback]:
    """Feedback on invented reply ids."""
    return [Feedback(f"invented-{n}", "bad", None, text, None, 10.0, client) for n in range(count)]


def test_feedback_on_invented_ids_leaves_the_ratings_of_known_replies(
    monitor: TrafficMonitor, monkeypatch: pytest.MonkeyPatch, run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    monkeypatch.setattr(module, "MAX_UNKNOWN_ENTRIES", 5)
    monkeypatch.setattr(module, "MAX_ENTRIES", 20)
    again = TrafficMonitor(run, config, assigner, clock)
    again.record_feedback([replace(GOOD, client="one")])
    for start in range(0, 300, 20):
        again.record_feedback(_flood(300)[start : start + 20])
    assert _ratings(again) == {"good": 1, "bad": 0}
    assert len(_lines(run)) <= 40
    assert _ratings(TrafficMonitor(run, config, assigner, clock)) == {"good": 1, "bad": 0}


@pytest.mark.parametrize("retention", ["none", "text"])
def test_a_client_with_much_feedback_on_known_replies_leaves_that_of_others(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, monkeypatch: pytest.MonkeyPatch, retention: str
) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 20)
    drift = config.drift.model_copy(update={"retention": retention})
    made = TrafficMonitor(run, config.model_copy(update={"drift": drift}), assigner, clock)
    made.record([Observation(f"id-{n}", "sw", f"habari {n}", "v0001", 1.0, 1.0) for n in range(150)])
    made.record_feedback([Feedback(f"id-{n}", "good", None, None, None, 10.0, f"client-{n}") for n in range(8)])
    for start in range(8, 150, 10):
        made.record_feedback([Feedback(f"id-{n}", "bad", None, None, None, 10.0, "flood") for n in range(start, start + 10)])
    assert _ratings(made) == {"good": 8, "bad": 12}


def test_the_file_is_bounded_in_bytes(monitor: TrafficMonitor, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 40_000)
    monkeypatch.setattr(module, "MAX_UNKNOWN_BYTES", 10_000)
    most = 0
    for feedback in _flood(60, text="\u4e00" * 500):
        monitor.record_feedback([feedback, replace(GOOD, comment="x" * 2000, time=float(most))])
        most = max(most, len(run.read_monitor("feedback.jsonl") or b""))
    assert most <= 2 * 50_000 + 6_000
