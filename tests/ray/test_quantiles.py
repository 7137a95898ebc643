"""The command of the quantile test, from selections to its table, and again without any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compass_ray.artifacts import RunDir
from compass_ray.cli import app
from compass_ray.evaluation.quantiles import METHODS
from tests.ray.in_process import no_workers

pytestmark = pytest.mark.slow


def test_a_run_of_the_quantiles_ends_in_a_table_and_is_not_made_twice(
    adapted: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pool", "guides/sw", "embeddings/pool", "embeddings/guides/sw", "clusters"):
        shutil.copytree(Path(adapted.path, name), tmp_path / name)
    command = ["quantile-test", "--preset", "atlas-test", "--languages", "sw", "--run", str(tmp_path)]
    command += ["--set", "train.tokens=2000", "--set", "select.budget=0.5", "--json"]
    with no_workers():
        first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)
    assert found["languages"] == ["sw"]
    distances = [row["distance"] for row in found["measures"][0]["rows"][1:]]
    assert distances == sorted(distances)
    run = RunDir(str(tmp_path))
    added = [run.selection(method, "sw").require().metrics["selected"] for method in METHODS]
    assert added[0] == 0
    assert len(set(added[1:])) == 1 < added[1]
    monkeypatch.setattr("compass_ray.ray_session.start", _refuse)
    again = CliRunner().invoke(app, command)
    assert json.loads(again.stdout) == found


def _refuse(*args: object) -> None:
    raise AssertionError("Ray was started although nothing was missing")
