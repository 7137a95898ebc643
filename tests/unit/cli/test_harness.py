"""``compass-ray eval``: what it lists, refuses, passes on and prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from compass_ray.artifacts import Identity, RunDir
from compass_ray.cli.harness import _print, _row
from compass_ray.config import RunConfig
from compass_ray.harness import planned_tasks
from compass_ray.harness.layouts import task_layouts
from compass_ray.harness.planned_tasks import HarnessTask
from compass_ray.records.harness import HarnessRecord
from compass_ray.stages import harness
from tests.unit.command_line import Command, command_in_process


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_in_process(monkeypatch, capsys)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, list[HarnessTask]]]:
    """The tasks of each evaluation, which publishes the same record for all of them."""
    made: list[tuple[RunConfig, list[HarnessTask]]] = []

    def evaluate(config: RunConfig, run: RunDir, wanted: Sequence[HarnessTask], **options: Any) -> None:
        made.append((config, list(wanted)))
        for task in wanted:
            writer = run.harness(task.method, task.language, task.task).begin(Identity("harness", {}, {}))
            names = {"task": task.task, "language": task.language, "method": task.method}
            numbers = {"metric": "acc,none", "value": 0.5, "stderr": 0.04, "chance": 0.25, "items": 1234}
            HarnessRecord.model_validate({**names, **numbers}).write(writer)
            writer.publish()

    monkeypatch.setattr(harness, "run_tasks", evaluate)
    monkeypatch.setattr(planned_tasks, "expand_tags", lambda wanted: wanted)
    monkeypatch.setattr(harness, "find_pending", lambda config, run, wanted, *, force: wanted)
    monkeypatch.setattr("compass_ray.cli.harness.open_session", lambda *arguments, **options: nullcontext())
    return made


def test_the_list_has_every_layout(command: Command) -> None:
    done = command("eval --list")
    assert done.code == 0
    assert all(f"{layout.name} " in done.out and layout.title in done.out for layout in task_layouts().values())


def test_values_stand_beside_their_chance_level(
    command: Command, calls: list[tuple[RunConfig, list[HarnessTask]]], folder: str
) -> None:
    done = command(
        f"eval {folder} --tasks test_set,belebele --method base,v0002 --data /rows --data belebele=/b --limit 7 --languages sw"
    )
    assert done.code == 0, done.err
    ((config, wanted),) = calls
    assert (config.evaluate.harness.limit, config.evaluate.harness.data) == (7, "/rows")
    assert [(each.task, each.method, each.version, each.folder) for each in wanted] == [
        ("test_set", "base", None, None),
        ("belebele", "base", None, "/b"),
        ("test_set", "v0002", "v0002", None),
        ("belebele", "v0002", "v0002", "/b"),
    ]
    assert done.out.splitlines()[0].split() == ["task", "language", "method", "metric", "value", "±", "error", "chance", "items"]
    assert done.out.splitlines()[1].split() == ["test_set", "sw", "base", "acc,none", "50.0%", "4.0%", "25.0%", "1,234"]


def test_a_folder_of_task_files_is_absolute(
    command: Command,
    calls: list[tuple[RunConfig, list[HarnessTask]]],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert command(f"eval {folder} --tasks mine,mine --method base --languages sw --include tasks").code == 0
    ((_, (task,)),) = calls
    assert task.include == str(Path.cwd() / "tasks")


def test_complete_results_are_shown_without_ray(
    command: Command, calls: list[tuple[RunConfig, list[HarnessTask]]], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"eval {folder} --tasks test_set --method base --languages sw"
    first = command(words)
    monkeypatch.setattr(harness, "find_pending", lambda *arguments, **options: {})
    monkeypatch.setattr("compass_ray.cli.harness.open_session", lambda *arguments, **options: pytest.fail("Ray was started"))
    assert command(words) == first
    assert len(calls) == 1


def test_only_shares_are_percentages() -> None:
    for metric, shown in {"acc_norm,none": "50.0%", "word_perplexity,none": "0.5", "mcc,none": "0.5"}.items():
        assert _row(HarnessRecord(task="a", metric=metric, value=0.5))[4] == shown


def test_truncated_requests_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    _print([HarnessRecord(task="mgsm", language="sw", method="base", metric="acc,none", value=0.5, truncated=1200)])
    assert "note: 1,200 requests of mgsm (sw, base) were longer than the model's context; their start was cut." in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_help_says_that_code_is_run(command: Command) -> None:
    assert "Python code that they name with !function is run" in " ".join(command("eval --help").out.replace("│", " ").split())


def test_json(command: Command, calls: list[tuple[RunConfig, list[HarnessTask]]], folder: str) -> None:
    found = json.loads(command(f"eval {folder} --tasks test_set --method base --languages sw --json").out)
    assert found["results"][0]["value"] == 0.5
    assert (found["results"][0]["task"], found["run"]) == ("test_set", folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--method base", "no task is given; give --tasks"),
        ("--tasks belebele --method base", "the rows of belebele have no folder; give --data belebele=FOLDER"),
        ("--tasks a{b} --method base", "a{b} is no name of a task; braces can have language or flores"),
        ("--tasks test_set --method v0009", "no adapter 'v0009' for 'sw'; choose of base"),
    ],
)
def test_an_invalid_request_says_what_to_do(command: Command, folder: str, options: str, message: str) -> None:
    done = command(f"eval {folder} {options}")
    assert done.code == 2
    assert message in done.err
