"""Updates as tasks, without Ray: one per language, and no more at the same time than the settings allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.continual.controller import update_tasks
from compass_ray.continual.controller.reconcile import AttemptResult
from compass_ray.continual.controller.update_tasks import UpdateTasks
from compass_ray.monitoring.observations import WindowReady


class FakeRay:
    """As Ray is used, ``ray.remote(...)(function).options(...).remote(...)``; tasks end when a test ends them."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, Any]]] = []
        self.finished: set[str] = set()

    def remote(self, *given: Any, **_: Any) -> Any:
        if not given:
            return lambda function: self
        language: str = given[2].language
        self.started.append((language, self.given))
        return language

    def options(self, **options: Any) -> FakeRay:
        self.given = options
        return self

    def wait(self, references: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert (num_returns, timeout) == (len(references), 0), "it does not wait"
        return [each for each in references if each in self.finished], []


def _ready(language: str) -> WindowReady:
    return WindowReady(language, f"windows/{language}-1.parquet", 40, "v0001")


def test_as_many_updates_run_as_the_settings_allow_and_one_per_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    monkeypatch.setattr(update_tasks, "ray", ray)
    monkeypatch.setattr(ray_session, "failure", {"sw": None, "hi": "the worker was lost"}.get)
    updates = UpdateTasks(RunDir(str(tmp_path)), load_run_config("atlas-test", overrides=["resources.train_concurrency=2"]))
    assert updates.poll_finished() == []
    for language in ("sw", "sw", "hi", "yo"):
        updates.start(language, _ready(language))
    assert updates.running() == ("sw", "hi")
    assert updates.poll_finished() == []
    ray.finished = {"sw", "hi"}
    assert updates.poll_finished() == [AttemptResult("sw"), AttemptResult("hi", "the worker was lost")]
    assert updates.running() == ()
    updates.start("yo", _ready("yo"))
    assert [language for language, _ in ray.started] == ["sw", "hi", "yo"]
    assert ray.started[0][1] == {"num_cpus": 0, "max_retries": 0}
