"""A run with clusters, created once and copied for each test, and a re-clustering without Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual import recluster
from tests.unit.clustering.versions.made_run import config_of, encode, make_run


@pytest.fixture
def config() -> RunConfig:
    return config_of()


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(str(tmp_path_factory.mktemp("made") / "run"), config_of())


@pytest.fixture
def run(_made: RunDir, tmp_path: Path) -> RunDir:
    shutil.copytree(_made.path, tmp_path / "run")
    return RunDir(str(tmp_path / "run"))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run Ray tasks inline and embed prompts by their words. Return the list of task names."""
    called: list[str] = []

    def task(config: RunConfig, function: Callable[..., object], *arguments: object) -> object:
        called.append(function.__name__)
        return function(*arguments)

    monkeypatch.setattr(recluster, "_task", task)
    monkeypatch.setattr(recluster, "make_prompt_encoder", lambda config: encode)
    return called
