"""The complete demo as a new user runs it: in an empty folder, and a second time to check that nothing is repeated."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from babel.core import Locale, get_global

from compass_ray import pipeline
from compass_ray.artifacts import RunDir, jsonl_log

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.demo, pytest.mark.timeout(2400)]


def _demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "compass_ray", "demo", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    done = _demo(folder, "--json")
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_every_stage_is_complete_and_every_request_was_answered(folder: Path, result: dict[str, Any]) -> None:
    run = RunDir(str(folder / "demo-run"))
    assert all(status.complete == status.total for status in pipeline.collect_status(run.read_config(), run))
    assert result["requests"] > 0
    assert result["failed"] == 0


def test_the_shift_was_detected_evaluated_and_reported(folder: Path, result: dict[str, Any]) -> None:
    run, outcome = RunDir(str(folder / "demo-run")), result["outcome"]
    assert outcome is not None, "no alarm"
    served = outcome["to_version"] if outcome["accepted"] else outcome["from_version"]
    assert (run.live(outcome["language"]) or {})["version"] == served
    kinds = [
        decision["kind"] for decision in jsonl_log.read(run, "decisions.jsonl") if decision["language"] == outcome["language"]
    ]
    assert {"drift", "gate"} <= set(kinds)
    assert result["lines"]
    changes = run.change(outcome["language"], outcome["to_version"]).read_json("results.json")
    assert changes["old"]["items"] > 0
    assert changes["new"]["items"] > 0


def test_the_service_answers_a_question_of_each_of_three_scripts(result: dict[str, Any]) -> None:
    replies = result["replies"]
    assert [reply["language"] for reply in replies] == ["sw", "hi", "ru"]
    assert all(reply["reply"] and reply["adapter"].startswith(reply["language"]) for reply in replies)


def _city(language: str, question: str) -> str:
    """The city of the territory that a question names, by CLDR, or by its time zone's name if CLDR has no other name."""
    locale, name = Locale.parse(language), re.split("[:?;]", question)[1].strip()
    [territory] = [code for code, written in locale.territories.items() if written == name and len(code) == 2]
    [zone] = get_global("territory_zones")[territory]
    return str(locale.time_zones.get(zone, {}).get("city", zone.split("/")[-1].replace("_", " ")))


def test_the_question_of_the_readme_has_a_right_answer(result: dict[str, Any]) -> None:
    """It is also the first question of the demo. The city comes from CLDR, not from the atlas."""
    question = "Ni mji upi uliopo katika nchi hii: Kenya?"
    assert any(question in page.read_text("utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    first = result["replies"][0]
    assert first["question"] == question
    assert first["reply"] == _city("sw", question) == "Nairobi"


def test_most_questions_of_the_demo_have_right_answers(result: dict[str, Any]) -> None:
    right = [reply["reply"] == _city(reply["language"], reply["question"]) for reply in result["replies"]]
    assert sum(right) >= 2, result["replies"]


@pytest.fixture(scope="module")
def url(folder: Path, result: dict[str, Any]) -> Iterator[str]:
    """The address of ``compass-ray serve demo-run``, on a free port."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "compass_ray", "serve", "demo-run", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        served = next(found for line in service.stdout if (found := re.search(r"^serving .* at (http://\S+)", line)))
        yield served[1]
        service.terminate()
        assert service.wait(timeout=120) == 0


def test_the_request_of_the_quickstart_is_answered_by_the_served_run(url: str) -> None:
    [command] = re.findall(r"^curl (\S+completions.*?)\n```", (ROOT / "docs/quickstart.md").read_text("utf-8"), re.M | re.S)
    address, *_, body = shlex.split(command.replace("\\\n", " "))
    question = json.loads(body)["messages"][-1]["content"]
    path = address.removeprefix("localhost:8000")
    reply = httpx.post(f"{url}{path}", content=body.encode(), headers={"content-type": "application/json"}, timeout=60.0)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == _city("sw", question)
    assert reply.headers["x-compass-route"].startswith("sw@")


def test_only_the_user_can_read_the_prompts(folder: Path, result: dict[str, Any]) -> None:
    monitor = folder / "demo-run" / "monitor"
    modes = {path.relative_to(monitor).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in [monitor, *monitor.rglob("*")]}
    assert {modes.pop("."), modes.pop("windows")} == {0o700}
    assert {"traffic.jsonl", "decisions.jsonl", "retention.key"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_second_demo_repeats_nothing_and_prints_the_comparison(folder: Path, result: dict[str, Any]) -> None:
    run = RunDir(str(folder / "demo-run"))
    before = {a.name: a.require() for stage in pipeline.STAGES[:-1] for a in stage.artifacts(run.read_config(), run)}
    done = _demo(folder)
    assert done.returncode == 0, done.stderr
    assert {name: run.artifact(*name.split("/")).require() for name in before} == before
    printed = done.stdout.lower()
    assert all(word in printed for word in ("zero-shot", "target", "random", "compass", "report:"))
    assert len(run.adapter_versions(result["outcome"]["language"])) == 4
