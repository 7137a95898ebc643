"""Where a run stands: live versions, drift in words, the next command, and a view that refreshes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from rich.text import Text

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.cli.status import describe_check, watch_status
from compass_ray.continual.run_overview import LanguageOverview, choose_next_step, read_last_checks, read_overview
from compass_ray.pipeline import StageStatus
from compass_ray.records.checks import CheckRecord
from compass_ray.records.decisions import DriftRecord, GateDecisionRecord, WindowDiscardedRecord
from compass_ray.registry import LivePointer
from compass_ray.serving.metrics.status import language_status
from tests.unit.command_line import Command

DONE = [StageStatus("pool", 3, 3), StageStatus("train", 6, 6)]
LIVE = LanguageOverview("sw", LivePointer(version="v0001"))


def _check(language: str, prompts: int, **fields: Any) -> dict[str, Any]:
    return {"language": language, "prompts": prompts, "divergence": 0.041, "threshold": 0.05, "time": 1e9, **fields}


def test_the_live_version_and_the_last_check_are_shown(compass_ray: Command, run: RunDir) -> None:
    jsonl_log.append(run, "checks.jsonl", [_check("sw", 50, divergence=0.01), _check("sw", 100)])
    done = compass_ray(f"status {run.uri}")
    assert done.code == 0, done.err
    [sw] = [line for line in done.out.splitlines() if line.startswith("sw ")]
    [hi] = [line for line in done.out.splitlines() if line.startswith("hi ")]
    assert "v0001" in sw
    assert "2001-09-09 01:46" in sw
    assert "none (0.041 bits, threshold 0.050)" in sw
    assert "none: the base model answers" in hi
    assert "no check yet" in hi
    assert done.out.splitlines()[-1] == f"next: compass-ray adapt --run {run.uri}  (stage pool has 0 of 3 artifacts)"


def test_the_json_has_the_same_and_names_versions_as_the_service_does(compass_ray: Command, run: RunDir) -> None:
    jsonl_log.append(run, "checks.jsonl", [_check("sw", 100)])
    registry.set_shadow(run, "sw", "v0002")
    registry.pin(run, "sw", reason="exam week")
    found = json.loads(compass_ray(f"status {run.uri} --json").out)
    sw, hi = found["languages"]["sw"], found["languages"]["hi"]
    assert found["stages"][0] == {"stage": "pool", "whole": 0, "total": 3}
    assert found["next"]["command"] == f"compass-ray adapt --run {run.uri}"
    assert (sw["live"], sw["canary"], sw["shadow"], sw["pinned"]) == ("v0001", None, "v0002", "exam week")
    assert (sw["last_check"]["divergence"], sw["last_check"]["drifted"], sw["window_ready"]) == (0.041, False, False)
    assert set(hi.values()) == {None, False}
    names = language_status("sw", registry.read_catalogue(run, ["sw"])).keys()
    assert names - sw.keys() == {"name", "versions"}


def test_a_damaged_pointer_is_shown_and_the_rest_too(compass_ray: Command, run: RunDir) -> None:
    run.set_live("sw", {"version": 3})
    done = compass_ray(f"status {run.uri}")
    assert (done.code, "pool" in done.out, "next: " in done.out) == (0, True, True)
    [sw] = [line for line in done.out.splitlines() if line.startswith("sw ")]
    assert "damaged" in done.out or "cannot be read" in done.out, sw


@pytest.mark.parametrize(
    ("fields", "text", "style"),
    [
        ({}, "none (0.041 bits, threshold 0.050)", "green"),
        (
            {"divergence": 0.084, "p_value": 0.21},
            "above the threshold, but not significant (0.084 bits, threshold 0.050, p = 0.21)",
            "yellow",
        ),
        ({"divergence": 0.084, "p_value": 0.001, "drifted": True}, "drift (0.084 bits, threshold 0.050)", "bold red"),
    ],
)
def test_a_check_has_one_of_three_verdicts(fields: dict[str, Any], text: str, style: str) -> None:
    assert describe_check(CheckRecord(**_check("sw", 1, **fields))) == (text, style)


def test_the_last_valid_check_of_each_language_is_read() -> None:
    whole = [_check("sw", 1), _check("hi", 5), _check("sw", 2)]
    lines = [*(json.dumps(each) for each in whole), '{"language":"yo"}', '{"language":"sw","pro']
    found = read_last_checks("\n".join(lines).encode(), ["sw", "hi", "de"])
    assert {code: check.prompts for code, check in found.items()} == {"sw": 2, "hi": 5}


@pytest.mark.parametrize(
    ("stages", "languages", "command"),
    [
        ([StageStatus("pool", 3, 3), StageStatus("train", 2, 6)], [LIVE], "compass-ray adapt --run 'my runs/a'"),
        (DONE, [LanguageOverview("sw")], "compass-ray serve 'my runs/a'"),
        (DONE, [replace(LIVE, is_window_ready=True)], "compass-ray update 'my runs/a' --ready"),
        (DONE, [replace(LIVE, accepted="v0002")], "compass-ray adapters promote 'my runs/a' sw v0002"),
        (DONE, [LIVE], "compass-ray serve 'my runs/a'"),
    ],
)
def test_the_next_command(stages: list[StageStatus], languages: list[LanguageOverview], command: str) -> None:
    assert choose_next_step("my runs/a", stages, languages).command == command


def test_a_service_that_updates_itself_needs_no_update_by_hand() -> None:
    step = choose_next_step("a", DONE, [replace(LIVE, is_window_ready=True)], auto=True)
    assert step.command == "compass-ray serve a"


def test_a_run_that_is_served_is_not_to_be_served_again() -> None:
    step = choose_next_step("a", DONE, [LIVE], served_at="http://127.0.0.1:8000")
    assert step.command == "compass-ray chat a"
    assert "http://127.0.0.1:8000 serves the run" in step.reason
    drifted = choose_next_step("a", DONE, [replace(LIVE, is_window_ready=True)], served_at="http://127.0.0.1:8000")
    assert drifted.command == "compass-ray update a --ready"


def test_a_version_waits_for_a_person_until_it_is_promoted(run: RunDir) -> None:
    config = run.read_config()
    for decision in (
        DriftRecord(language="sw", time=1.0),
        GateDecisionRecord(language="sw", to_version="v0002", accepted=True, promotion="manual"),
    ):
        registry.append_decision(run, decision)
    assert [(each.language, each.accepted) for each in read_overview(run, config)] == [("sw", "v0002"), ("hi", None)]
    registry.promote(run, "sw", "v0002")
    assert [each.accepted for each in read_overview(run, config)] == [None, None]


def test_the_monitor_s_log_is_read_only_while_an_alarm_has_no_decision(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr("compass_ray.continual.run_overview.read_ready_windows", lambda run, _: read.append(run.uri) or [])
    registry.append_decision(run, DriftRecord(language="sw"))
    read_overview(run, run.read_config())
    assert len(read) == 1
    registry.append_decision(run, WindowDiscardedRecord(language="sw"))
    read_overview(run, run.read_config())
    assert len(read) == 1


def test_watching_refreshes_until_it_is_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    numbers, waits = count(), list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            raise KeyboardInterrupt

    watch_status(lambda: Text(f"view {next(numbers) // 2}"), wait)
    assert waits == [2.0] * 4
    assert capsys.readouterr().out == "view 0\nview 1\n"


def test_watch_shows_the_run(compass_ray: Command, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    monkeypatch.setattr(watch_status, "__defaults__", (interrupt,))
    done = compass_ray(f"status {folder} --watch")
    assert (done.code, "pool" in done.out, done.out.count("next: ")) == (0, True, 1)
    assert compass_ray(f"status {folder} --watch --json").code == 2
