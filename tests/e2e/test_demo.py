"""The whole demo as a newcomer starts it: in an empty folder, and once more to see that nothing is repeated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import RunDir, jsonl_log

pytestmark = [pytest.mark.demo, pytest.mark.timeout(2400)]


def _demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "compass_ray", "demo", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def story(folder: Path) -> dict[str, Any]:
    done = _demo(folder, "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_every_stage_is_whole_and_every_request_was_answered(folder: Path, story: dict[str, Any]) -> None:
    run = RunDir(str(folder / "demo-run"))
    assert all(status.complete == status.total for status in pipeline.collect_status(run.read_config(), run))
    assert story["requests"] > 0
    assert story["failed"] == 0


def test_the_shift_was_seen_judged_and_told(folder: Path, story: dict[str, Any]) -> None:
    run, outcome = RunDir(str(folder / "demo-run")), story["outcome"]
    assert outcome is not None, "no alarm"
    served = outcome["to_version"] if outcome["accepted"] else outcome["from_version"]
    assert (run.live(outcome["language"]) or {})["version"] == served
    kinds = [
        decision["kind"] for decision in jsonl_log.read(run, "decisions.jsonl") if decision["language"] == outcome["language"]
    ]
    assert {"drift", "gate"} <= set(kinds)
    assert story["lines"]
    changes = run.change(outcome["language"], outcome["to_version"]).read_json("results.json")
    assert changes["old"]["items"] > 0
    assert changes["new"]["items"] > 0


def test_once_more_it_repeats_nothing_and_prints_the_comparison(folder: Path, story: dict[str, Any]) -> None:
    run = RunDir(str(folder / "demo-run"))
    before = {a.name: a.require() for stage in pipeline.STAGES[:-1] for a in stage.artifacts(run.read_config(), run)}
    done = _demo(folder)
    assert done.returncode == 0, done.stderr
    assert {name: run.artifact(*name.split("/")).require() for name in before} == before
    printed = done.stdout.lower()
    assert all(word in printed for word in ("zero-shot", "target", "random", "compass", "report:"))
    assert len(run.adapter_versions(story["outcome"]["language"])) == 4
