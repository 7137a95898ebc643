"""Reply quality: by version, bounded, durable, and with limited influence of one client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.core.drift.quality_tests import (
    MIN_SAMPLES,
    MinEffects,
    QualitySignals,
    max_ratings_per_client,
    run_quality_tests,
)
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import CanaryAnswers, Feedback, Observation
from compass_ray.monitoring.reply_quality import MAX_VERSIONS, ReplyQuality, signals_from_record, signals_to_record
from tests.unit.fakes import Clock, WordAssigner

ROUND = CanaryAnswers("sw", "v0001", 20, 17, 5.0)


@pytest.fixture
def monitor(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> TrafficMonitor:
    return TrafficMonitor(run, config, assigner, clock)


def replies(version: str | None, losses: Sequence[float | None], language: str = "sw") -> list[Observation]:
    return [Observation(f"{version}-{n}", language, f"swali {n} 0", version, nll, 1.0) for n, nll in enumerate(losses)]


def rate(monitor: TrafficMonitor, version: str, numbers: Sequence[int], rating: Any, key: str | None) -> None:
    monitor.record_feedback([Feedback(f"{version}-{n}", rating, None, None, key, 2.0) for n in numbers])


def counts(signals: QualitySignals) -> tuple[int, int, int, int]:
    return signals.bad, signals.rated, signals.right, signals.asked


def test_losses_ratings_and_answers_are_stored_by_version(monitor: TrafficMonitor) -> None:
    monitor.record([*replies("v0001", [1.0, None, 2.0]), *replies("v0002", [3.00004]), *replies(None, [9.0])])
    monitor.record(replies("v0009", [7.0], "de"))
    rate(monitor, "v0001", [0, 1], "bad", "abc")
    rate(monitor, "v0002", [0], "good", "abc")
    assert monitor.record_canary_answers([ROUND]).stored == 1
    found = monitor.signals("sw")
    assert {version: list(each.nll) for version, each in found.items()} == {"v0001": [1.0, 2.0], "v0002": [3.0]}
    assert counts(found["v0001"]) == (2, 2, 17, 20)
    assert counts(found["v0002"]) == (0, 1, 0, 0)


def test_only_the_last_window_of_each_version_counts(monitor: TrafficMonitor) -> None:
    monitor.record(replies("v0001", [float(n) for n in range(130)]))
    rate(monitor, "v0001", range(25, 35), "bad", None)
    found = monitor.signals("sw")["v0001"]
    assert list(found.nll) == list(range(30, 130))
    assert counts(found)[:2] == (5, 5)


def test_a_kill_and_a_compacted_log_lose_no_signal(
    monitor: TrafficMonitor, run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    monitor.record([*replies("v0001", [1.0] * 150), *replies("v0002", [2.0] * 10)])
    rate(monitor, "v0002", range(5), "good", None)
    monitor.record_canary_answers([ROUND, replace(ROUND, time=6.0, right=3)])
    for compact in (False, True):
        if compact:
            monitor.log.compact()
        again = TrafficMonitor(run, config, assigner, clock).signals("sw")
        before = monitor.signals("sw")
        assert {v: signals_to_record(each) for v, each in again.items()} == {
            v: signals_to_record(each) for v, each in before.items()
        }
    assert counts(again["v0001"]) == (0, 0, 20, 40)


def test_duplicate_answers_count_once_and_invalid_ones_not_at_all(monitor: TrafficMonitor) -> None:
    done = monitor.record_canary_answers(
        [ROUND, ROUND, replace(ROUND, right=21), replace(ROUND, language="xx"), replace(ROUND, asked=0, right=0)]
    )
    assert (done.stored, done.duplicates, done.rejected) == (1, 1, 3)
    assert monitor.record_canary_answers([ROUND]).duplicates == 1
    assert counts(monitor.signals("sw")["v0001"]) == (0, 0, 17, 20)


def test_the_newest_answers_are_stored_up_to_one_window(monitor: TrafficMonitor) -> None:
    monitor.record_canary_answers([replace(ROUND, time=float(n), right=n) for n in range(15)])
    assert counts(monitor.signals("sw")["v0001"]) == (0, 0, 10 + 11 + 12 + 13 + 14, 100)


def test_few_versions_are_stored_and_always_the_monitored_one(monitor: TrafficMonitor) -> None:
    monitor.reset_reference("sw", "v0001")
    for number in range(1, 20):
        monitor.record(replies(f"v{number:04d}", [1.0]))
    assert [*monitor.signals("sw")] == ["v0001", "v0017", "v0018", "v0019"]
    assert len(monitor.signals("sw")) == MAX_VERSIONS


@pytest.mark.parametrize("retention", ["none", "hash", "embedding", "text"])
def test_one_key_has_limited_influence_under_every_retention_setting(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, retention: str
) -> None:
    settings = config.model_copy(update={"drift": config.drift.model_copy(update={"retention": retention})})
    monitor = TrafficMonitor(run, settings, assigner, clock)
    monitor.record([*replies("v0001", [1.0] * 100), *replies("v0002", [1.0] * 100)])
    rate(monitor, "v0001", range(30), "bad", "loud")
    monitor = TrafficMonitor(run, settings, assigner, clock)
    rate(monitor, "v0001", range(30, 60), "bad", "loud")
    rate(monitor, "v0002", range(30), "bad", "loud")
    rate(monitor, "v0001", range(60, 90), "good", "other")
    found = monitor.signals("sw")
    assert (found["v0001"].bad, found["v0001"].rated, found["v0002"].bad) == (2, 4, 2)
    assert monitor.status()["languages"]["sw"]["ratings"] == {"good": 30, "bad": 90}


def test_a_key_that_changes_its_ratings_gains_no_influence(monitor: TrafficMonitor) -> None:
    monitor.record(replies("v0001", [1.0] * 10))
    rate(monitor, "v0001", range(10), "bad", "loud")
    monitor.record_feedback([Feedback(f"v0001-{n}", "good", None, None, "loud", 3.0) for n in range(10)])
    found = monitor.signals("sw")["v0001"]
    assert (found.bad, found.rated) == (0, 2)


def test_a_reply_is_bad_if_most_of_its_ratings_are(monitor: TrafficMonitor) -> None:
    monitor.record(replies("v0001", [1.0] * 3))
    for key, ratings in {"a": "bad good", "b": "bad bad", "c": "good bad"}.items():
        for number, rating in enumerate(ratings.split()):
            rate(monitor, "v0001", [number], rating, key)
    assert counts(monitor.signals("sw")["v0001"])[:2] == (2, 2)


@given(floor=st.floats(0.05, 1.0), usual=st.integers(MIN_SAMPLES, 400), rated=st.integers(MIN_SAMPLES, 400), others=st.data())
def test_the_ratings_of_one_client_alone_never_exceed_the_floor(
    floor: float, usual: int, rated: int, others: st.DataObject
) -> None:
    before = QualitySignals(bad=others.draw(st.integers(0, usual)), rated=usual)
    [test] = run_quality_tests(before, QualitySignals(bad=max_ratings_per_client(floor), rated=rated), 1.0, MinEffects(bad=floor))
    assert not test.exceeded


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.booleans(), st.integers(1, 7)), max_size=60), st.sampled_from("ab"))
def test_a_snapshot_is_the_complete_state_and_bounded(events: list[tuple[str, bool, int]], monitored: str) -> None:
    quality, size = ReplyQuality(5), 5
    for number, (version, answered, asked) in enumerate(events):
        if answered:
            quality.add_reply(version, f"id-{number}", None if number % 3 else 1.0, monitored=monitored)
        else:
            quality.add_canary_round(version, float(number), asked, asked // 2, monitored=monitored)
    copy = ReplyQuality(size)
    copy.restore(quality.snapshot())
    assert copy.snapshot() == quality.snapshot()
    assert len(quality.versions) <= MAX_VERSIONS
    if monitored in {version for version, *_ in events}:
        assert monitored in quality.versions
    for version in quality.versions:
        rounds = [(n, asked) for n, (name, answered, asked) in enumerate(events) if name == version and not answered]
        snapshot = quality.snapshot()[version]
        assert len(snapshot["replies"]) <= size
        assert [time for time, _, _ in snapshot["answers"]] == [float(n) for n, _ in rounds][
            len(rounds) - len(snapshot["answers"]) :
        ]
        assert sum(n for _, n, _ in snapshot["answers"][1:]) < size


def test_a_record_of_signals_is_complete() -> None:
    signals = QualitySignals(np.array([1.0, 2.5]), 1, 2, 3, 4)
    assert signals_to_record(signals_from_record({**signals_to_record(signals), "language": "sw"})) == signals_to_record(signals)
