"""Request statistics against plain sums, and their bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from compass_ray.serving.metrics import request_stats as module
from compass_ray.serving.metrics.definitions import METRICS
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.metrics.time_series import INTERVAL_SECONDS, MAX_INTERVALS
from tests.unit.fakes import LANGUAGE_STATUS, Clock

OUTCOMES = st.lists(st.sampled_from(["answered", "refused", "cancelled", "under way"]), max_size=40)


@pytest.fixture
def statistics(clock: Clock) -> RequestStatistics:
    return RequestStatistics(clock)


def _answer(
    statistics: RequestStatistics, language: str | None = "sw", adapter: str | None = "sw@v0001", seconds: float = 0.2
) -> None:
    statistics.record_start()
    statistics.record_completion(
        language=language,
        adapter=adapter,
        seconds=seconds,
        first_token_seconds=seconds / 2,
        prompt_tokens=7,
        completion_tokens=5,
    )


def _samples(statistics: RequestStatistics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(statistics.exposition().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


@given(outcomes=OUTCOMES)
def test_every_request_is_counted_once_however_it_ended(outcomes: list[str]) -> None:
    statistics = RequestStatistics(Clock())
    for outcome in outcomes:
        if outcome == "answered":
            _answer(statistics)
            continue
        statistics.record_start()
        if outcome == "refused":
            statistics.record_refusal(429)
        elif outcome == "cancelled":
            statistics.record_cancellation()
    summary, ended = statistics.summary(), len(outcomes) - outcomes.count("under way")
    assert summary["waiting"] == outcomes.count("under way")
    assert summary["requests"] == ended == sum(line["requests"] for line in statistics.history())
    assert summary["refused"].get("429", 0) == summary["failed"] == outcomes.count("refused")
    assert summary["cancelled"] == outcomes.count("cancelled")
    assert summary["completion_tokens"] == 5 * outcomes.count("answered")
    total = sum(value for (name, _), value in _samples(statistics).items() if name == "compass_requests_total")
    assert total == ended


@given(seconds=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50))
def test_percentiles_are_numpy_s(seconds: list[float]) -> None:
    statistics = RequestStatistics(Clock())
    for each in seconds:
        _answer(statistics, seconds=each)
    summary = statistics.summary()
    assert summary["latency_p50_ms"] == pytest.approx(np.percentile(seconds, 50) * 1000, abs=1e-3)
    assert summary["latency_p95_ms"] == pytest.approx(np.percentile(seconds, 95) * 1000, abs=1e-3)
    assert summary["first_token_p50_ms"] == pytest.approx(np.percentile(seconds, 50) * 500, abs=1e-3)


def test_empty_statistics(statistics: RequestStatistics) -> None:
    assert statistics.summary()["latency_p50_ms"] is None
    assert statistics.summary()["tokens_per_second"] == 0.0
    assert statistics.history() == statistics.errors() == []
    assert statistics.exposition()


def test_languages_are_counted_separately_and_the_base_model_has_a_label(statistics: RequestStatistics) -> None:
    _answer(statistics)
    _answer(statistics, None, None)
    assert {code: found["requests"] for code, found in statistics.summary()["languages"].items()} == {"none": 1, "sw": 1}
    samples = _samples(statistics)
    assert samples["compass_requests_total", (("adapter", "base"), ("language", "none"), ("status", "200"))] == 1
    assert samples["compass_tokens_total", (("kind", "prompt"), ("language", "sw"))] == 7


def test_unanswered_requests_have_no_adapter_and_there_are_no_created_series(statistics: RequestStatistics) -> None:
    statistics.record_start()
    statistics.record_refusal(404)
    statistics.record_start()
    statistics.record_cancellation()
    samples = _samples(statistics)
    for status in ("404", "499"):
        assert samples["compass_requests_total", (("adapter", "none"), ("language", "none"), ("status", status))] == 1
    assert not [name for name, _ in samples if name.endswith("_created")]


def test_history_has_an_entry_for_every_ten_seconds_of_the_last_hour(statistics: RequestStatistics, clock: Clock) -> None:
    _answer(statistics)
    clock.now += 35
    _answer(statistics)
    assert [line["requests"] for line in statistics.history()] == [1, 0, 0, 1]
    clock.now += 10 * 3600
    lines = statistics.history()
    assert len(lines) == MAX_INTERVALS
    assert np.all(np.diff([line["time"] for line in lines]) == INTERVAL_SECONDS)
    assert sum(line["requests"] for line in lines) == 0


def test_a_clock_that_is_set_back_is_tolerated(statistics: RequestStatistics, clock: Clock) -> None:
    _answer(statistics)
    clock.now -= 5000
    _answer(statistics)
    assert [line["requests"] for line in statistics.history()] == [2]
    clock.now -= 100_000
    _answer(statistics)
    assert [line["requests"] for line in statistics.history()] == [1]


def test_tokens_per_second_is_over_the_last_minute(statistics: RequestStatistics, clock: Clock) -> None:
    for _ in range(7):
        _answer(statistics)
        _answer(statistics)
        clock.now += INTERVAL_SECONDS
    assert statistics.summary()["tokens_per_second"] == 1.0
    clock.now += 60
    assert statistics.summary()["tokens_per_second"] == 0.0


def test_shadow_statistics_use_only_answered_copies(statistics: RequestStatistics) -> None:
    for nll in (1.0, 2.0, float("nan")):
        statistics.record_shadow(adapter="sw@v0002", mean_nll=nll, seconds=0.5, failed=False)
    statistics.record_shadow(adapter="sw@v0002", mean_nll=None, seconds=9.0, failed=True)
    shadow = statistics.summary()["shadows"]["sw@v0002"]
    assert (shadow["requests"], shadow["failed"], shadow["mean_nll"], shadow["latency_p95_ms"]) == (4, 1, 1.5, 500.0)
    assert _samples(statistics)["compass_shadow_mean_nll", (("adapter", "sw@v0002"),)] == 1.5


def test_the_monitor_and_the_forwarder_are_exported(statistics: RequestStatistics) -> None:
    monitor = {"languages": {"sw": LANGUAGE_STATUS, "de": {"prompts": 3, "last_check": None, "version": None, "stale": False}}}
    monitor["damaged_lines"] = {"traffic.jsonl": 2}
    statistics.export_monitor_status(monitor, {"waiting": 2, "dropped": 5})
    statistics.export_monitor_status({"unreachable": "ActorDiedError"}, {"waiting": 4, "dropped": 6})
    samples = _samples(statistics)
    assert samples["compass_divergence_bits", (("language", "sw"),)] == 0.2
    assert samples["compass_divergence_threshold_bits", (("language", "sw"),)] == 0.1
    assert samples["compass_monitor_damaged_lines", (("file", "traffic.jsonl"),)] == 2
    assert samples["compass_monitored_prompts", (("language", "de"),)] == 3
    assert ("compass_divergence_bits", (("language", "de"),)) not in samples
    assert samples["compass_drift_leg_effect", (("language", "sw"), ("leg", "loss"))] == -0.1
    assert samples["compass_drift_leg_p_value", (("language", "sw"), ("leg", "divergence"))] == 0.0005
    fits = [samples[name, (("language", "sw"),)] for name in ("compass_noise_share", "compass_centroid_distance")]
    assert fits == [0.25, 0.4]
    assert [samples["compass_clusters_stale", (("language", code),)] for code in ("sw", "de")] == [1, 0]
    live = ("compass_reply_mean_nll", "compass_reply_bad_share", "compass_canary_right_share")
    assert [samples[name, (("language", "sw"),)] for name in live] == [1.5, 0.25, 0.75]
    assert not any((name, (("language", "de"),)) in samples for name in live)
    assert samples["compass_observations_dropped_total", ()] == 6
    assert samples["compass_observations_waiting", ()] == 4


def test_parts_that_do_not_run_are_exported_and_kept(statistics: RequestStatistics) -> None:
    statistics.export_parts({"monitor": {"failed": "encoder is missing"}, "controller": None}, 2)
    assert statistics.down == ("monitor",)
    assert _samples(statistics)["compass_part_up", (("part", "monitor"),)] == 0
    assert ("compass_part_up", (("part", "controller"),)) not in _samples(statistics)
    assert _samples(statistics)["compass_adapters_unavailable", ()] == 2
    statistics.export_parts({"monitor": {"languages": {}}, "controller": {"unreachable": "TimeoutError"}}, 0)
    assert statistics.down == ("controller",)
    samples = _samples(statistics)
    assert [samples["compass_part_up", (("part", part),)] for part in ("monitor", "controller")] == [1, 0]
    assert samples["compass_adapters_unavailable", ()] == 0
    statistics.export_parts({"monitor": {"starting": True}, "controller": {}}, 0)
    assert statistics.down == ()


def test_everything_in_the_table_is_exported_under_its_name(statistics: RequestStatistics) -> None:
    _answer(statistics)
    statistics.record_fallback()
    statistics.record_not_stored("sw")
    statistics.record_feedback("good")
    statistics.record_feedback(None)
    statistics.record_shadow(adapter="sw@v0002", mean_nll=1.0, seconds=1.0, failed=False)
    status = {"languages": {"sw": LANGUAGE_STATUS}, "damaged_lines": {"traffic.jsonl": 1}}
    statistics.export_monitor_status(status, {"waiting": 2, "dropped": 5})
    statistics.export_parts({"monitor": {}}, 0)
    names = {name for name, _ in _samples(statistics)}
    assert {name for metric in METRICS for name in metric.series_names} <= names


def test_memory_is_bounded_by_names_and_by_time(
    statistics: RequestStatistics, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_ADAPTERS", 3)
    for number in range(50):
        _answer(statistics, adapter=f"sw@v{number:04d}")
        statistics.record_error("x" * 10_000)
        clock.now += 1
    adapters = {dict(labels)["adapter"] for (name, labels), _ in _samples(statistics).items() if name == "compass_requests_total"}
    assert adapters == {"sw@v0000", "sw@v0001", "sw@v0002", "other"}
    assert len(statistics.errors()) == 50
    assert len(statistics.errors()[0]["message"]) == 300
