"""`compass-ray update`: the choice of languages, and its output for several."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pyarrow.parquet as pq
import pytest

from compass_ray import ray_session, registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.continual import update as updates
from compass_ray.monitoring import window_store
from compass_ray.serving import monitor_actor
from tests.unit.command_line import Command


class FakeMonitor:
    """A running monitor that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def reset_reference(self, language: str, version: str) -> None:
        self.calls.append(("reset", language, version))

    def discard_window(self, language: str) -> None:
        self.calls.append(("release", language))


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> FakeMonitor:
    fake = FakeMonitor()
    monkeypatch.setattr(monitor_actor, "find_running", lambda uri: fake)
    return fake


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, monitor: FakeMonitor) -> list[str]:
    """Languages of the requested updates; the gate accepts Swahili, rejects Hindi, and all others fail."""
    asked: list[str] = []

    def update_all(config: RunConfig, run: RunDir, windows: Sequence[updates.Window], **_: Any) -> updates.UpdateBatch:
        assert windows
        asked.extend(window.language for window in windows)
        outcomes = [
            updates.UpdateResult(code, "v0001", "v0002", code == "sw", "as judged") for code in asked if code in ("sw", "hi")
        ]
        for outcome in outcomes:
            if outcome.accepted:
                registry.promote(run, outcome.language, outcome.to_version)
        return updates.UpdateBatch(tuple(outcomes), {code: "it broke" for code in asked if code not in ("sw", "hi")})

    monkeypatch.setattr(updates, "run_updates", update_all)
    monkeypatch.setattr(ray_session, "session", lambda resources: nullcontext())
    return asked


def _offer(run: RunDir, language: str) -> None:
    """State files of a monitor with a ready window."""
    buffer, file = io.BytesIO(), f"windows/{language}-000000040.parquet"
    pq.write_table(window_store.window_table(language, [{"cluster": 1, "coarse": 1}]), buffer)
    run.write_monitor(file, buffer.getvalue())
    jsonl_log.append(run, "traffic.jsonl", [{"event": "offer", "language": language, "file": file}])


def _traffic(run: RunDir, language: str) -> None:
    prompt = {"event": "prompt", "language": language, "cluster": 1, "coarse": 1, "nll": None, "version": None, "time": 0.0}
    jsonl_log.append(run, "traffic.jsonl", [prompt])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give either --language, for example sw or sw,hi, or --ready"),
        ("--language sw --ready", "give either --language"),
        ("--language sw,hi --prompts x.jsonl", "--prompts needs exactly one language"),
        ("--ready --prompts x.jsonl", "--prompts needs exactly one language"),
        ("--language sw,yo", "'yo' is not a language of this run"),
    ],
)
def test_impossible_updates_are_errors(compass_ray: Command, run: RunDir, folder: str, words: str, message: str) -> None:
    _traffic(run, "sw")
    done = compass_ray(f"update {folder} {words}")
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize("from_file", [False, True])
def test_a_rejected_update_of_one_language_resumes_monitoring(
    compass_ray: Command,
    run: RunDir,
    folder: str,
    made: list[str],
    monitor: FakeMonitor,
    monkeypatch: pytest.MonkeyPatch,
    from_file: bool,
) -> None:
    window = updates.Window("sw", (1,), "abc")
    monkeypatch.setattr(updates, "read_window", lambda *_: window)
    monkeypatch.setattr(updates, "run_update", lambda *_, **__: updates.UpdateResult("sw", "v0001", "v0002", False, "as judged"))
    compass_ray(f"update {folder} --language sw --yes{' --prompts x.jsonl' if from_file else ''}")
    assert monitor.calls == ([] if from_file else [("release", "sw")])


@pytest.mark.parametrize("json_", [False, True])
def test_one_language_s_outcome_is_the_command_s_result(
    compass_ray: Command, run: RunDir, folder: str, made: list[str], monkeypatch: pytest.MonkeyPatch, json_: bool
) -> None:
    outcome = updates.UpdateResult("sw", "v0001", "v0002", False, "as judged")
    monkeypatch.setattr(updates, "run_update", lambda *_, **__: outcome)
    _traffic(run, "sw")
    done = compass_ray(f"update {folder} --language sw --yes{' --json' if json_ else ''}")
    if json_:
        assert updates.UpdateResult(**json.loads(done.out)) == outcome
    else:
        assert done.out == "sw: v0001 -> v0002 as judged; v0001 is live\n"
    assert made == []


def test_several_languages_are_updated_and_reported(compass_ray: Command, run: RunDir, folder: str, made: list[str]) -> None:
    for language in ("sw", "hi"):
        _traffic(run, language)
    done = compass_ray(f"update {folder} --language sw,hi --yes")
    assert made == ["sw", "hi"]
    assert done.code == 0
    assert done.out.splitlines() == [
        "sw: v0001 -> v0002 as judged; v0002 is live",
        "hi: v0001 -> v0002 as judged; v0001 is live",
    ]


def test_failed_languages_are_reported_after_the_others(
    compass_ray: Command, run: RunDir, folder: str, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_config(run.read_config().model_copy(update={"languages": ("sw", "ru")}))
    for language in ("sw", "ru"):
        _traffic(run, language)
    done = compass_ray(f"update {folder} --language sw,ru --yes --json")
    assert done.code == 1
    assert "one language failed; the artifacts of the other languages are complete. ru: it broke" in done.err
    found = json.loads(done.out)
    assert [outcome["language"] for outcome in found["outcomes"]] == ["sw"]
    assert found["failures"] == {"ru": "it broke"}


def test_without_a_ready_window_nothing_is_started(compass_ray: Command, folder: str) -> None:
    assert compass_ray(f"update {folder} --ready").out == "no language has a ready window\n"
    assert json.loads(compass_ray(f"update {folder} --ready --json").out) == {"outcomes": [], "failures": {}}


def test_all_ready_windows_are_updated_and_the_monitor_is_notified(
    compass_ray: Command, run: RunDir, folder: str, made: list[str], monitor: FakeMonitor
) -> None:
    for language in ("hi", "sw"):
        _offer(run, language)
    done = compass_ray(f"update {folder} --ready --yes")
    assert (done.code, made) == (0, ["sw", "hi"])
    assert monitor.calls == [("reset", "sw", "v0002"), ("release", "hi")]


@pytest.mark.parametrize(("damage", "message"), [(None, "is missing"), (b"PAR1", "cannot be read (")])
@pytest.mark.parametrize("others", [["sw"], []])
def test_an_unusable_window_is_discarded_and_blocks_no_other(
    compass_ray: Command,
    run: RunDir,
    folder: str,
    made: list[str],
    monitor: FakeMonitor,
    damage: bytes | None,
    message: str,
    others: list[str],
) -> None:
    for language in ("hi", *others):
        _offer(run, language)
    run.delete_monitor("windows/hi-000000040.parquet")
    if damage is not None:
        run.write_monitor("windows/hi-000000040.parquet", damage)
    done = compass_ray(f"update {folder} --ready --yes --json")
    assert (done.code, made) == (1, others)
    assert message in json.loads(done.out)["failures"]["hi"]
    assert message in done.err
    assert monitor.calls == [*(("reset", code, "v0002") for code in others), ("release", "hi")]
    [released] = [each for each in jsonl_log.read(run, "decisions.jsonl") if each["kind"] == "released"]
    assert (released["language"], message in released["reason"]) == ("hi", True)


def test_a_window_with_a_canary_version_stays_ready(run: RunDir, monitor: FakeMonitor) -> None:
    updates.notify_outcomes(run, [updates.UpdateResult("sw", "v0001", "v0002", True, "better", "canary")])
    assert monitor.calls == []
    registry.promote(run, "sw", "v0002")
    updates.notify_outcomes(run, [updates.UpdateResult("sw", "v0001", "v0002", True, "better", "canary")])
    assert monitor.calls == [("reset", "sw", "v0002")]
