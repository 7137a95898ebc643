"""One whole run of the smallest preset, made once for the folder; who changes anything takes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, load_run_config


@pytest.fixture(scope="session")
def small() -> RunConfig:
    """Two languages on the small atlas, pooled training."""
    return load_run_config("atlas-test")


@pytest.fixture(scope="session")
def adapted(ray_cluster: None, small: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """All stages done. Read it, never change it."""
    run = RunDir(str(tmp_path_factory.mktemp("adapted") / "run"))
    pipeline.run_all(small, run)
    return run


@pytest.fixture
def copy(adapted: RunDir, tmp_path: Path) -> Callable[..., RunDir]:
    """A copy of the whole run without some of its folders, to change at will."""

    def make(*without: str) -> RunDir:
        target = tmp_path / "run"
        shutil.copytree(adapted.path, target, ignore=shutil.ignore_patterns("train_runs"))
        for folder in without:
            shutil.rmtree(target / folder)
        return RunDir(str(target))

    return make
