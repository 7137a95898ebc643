"""``compass-ray eval`` on Ray: the base model and an adapter of a run, complete afterwards, and shown in its report."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from compass_ray.config import with_overrides
from compass_ray.harness.planned_tasks import plan
from compass_ray.report import page
from compass_ray.stages.harness import find_pending
from tests import former_run
from tests.ray.commands import command_of, environment


def test_eval_is_computed_once_and_shown_in_the_report(ray_cluster: None, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")
    run = former_run.extract(tmp_path / "run")
    command = command_of("eval", run.path, "--tasks", "test_set", "--method", "base,compass", "--limit", "4", "--json")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [(each["method"], each["language"], each["items"], each["version"]) for each in results] == [
        ("base", "sw", 4, None),
        ("compass", "sw", 4, "v0001"),
    ]
    for each in results:
        items = run.harness(each["method"], "sw", "test_set").read_table("items.parquet")
        assert each["value"] == pytest.approx(sum(items["value"].to_pylist()) / 4)
    page.build_report(run, run.read_config())
    assert f"{100 * results[1]['value']:.1f}%" in run.report.read_bytes("index.html").decode()
    config = with_overrides(run.read_config(), ["evaluate.harness.limit=4"])
    again = plan(config, run, tasks=["test_set"], methods=["base", "compass"], data={})
    assert not find_pending(config, run, again)
