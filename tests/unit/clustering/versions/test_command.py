"""``compass-ray recluster``: its output and exit codes, without Ray."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from compass_ray import registry
from compass_ray.artifacts import RunDir
from compass_ray.clustering.versions import read_active
from compass_ray.config import Resources
from tests.unit.clustering.versions.made_run import WORDS, prompts_of, write_window
from tests.unit.command_line import Command


@pytest.fixture
def command(ray_sessions: list[Resources], compass_ray: Command, inline: list[str]) -> Command:
    return partial(compass_ray, "recluster")


def _traffic(run: RunDir) -> None:
    entries = [
        {"language": "sw", "row_id": f"p{i}", "prompt": prompt, "cluster": 0, "coarse": 0, "time": float(i)}
        for i, prompt in enumerate(prompts_of(WORDS[4:], 20))
    ]
    write_window(run, "sw", entries, "windows/sw-000000020.parquet")


def test_an_unknown_run_exits_with_1_and_the_command_to_create_one(command: Command, tmp_path: Path) -> None:
    code, out, err = command(str(tmp_path / "nothing"))
    assert (code, out) == (1, "")
    assert "there is no run in" in err


def test_nothing_to_do_is_reported_and_not_a_failure(command: Command, run: RunDir) -> None:
    code, out, _ = command(run.uri)
    assert code == 0
    assert out.startswith("nothing to do: clustering clusters is up to date")


def test_the_result_is_reported_with_each_reference(command: Command, run: RunDir) -> None:
    registry.promote(run, "sw", "v0001")
    _traffic(run)
    code, out, _ = command(run.uri, "--reason", "stale")
    assert code == 0
    first, degenerate, *references = out.splitlines()
    assert first == "clustering c0002 is active (before: clusters): 4 clusters, 0.0% of the pool is noise, fitted with 20 prompts"
    assert degenerate.startswith("c0002: the 4 clusters are as informative as 4.0 of equal size; set ")
    assert references == ["reference of sw@v0001: the guide set"]
    assert (read_active(run).pointer or {})["reason"] == "stale"


def test_json_output_has_nothing_else(command: Command, run: RunDir) -> None:
    _traffic(run)
    code, out, _ = command(run.uri, "--json")
    found = json.loads(out)
    assert (code, found["name"], found["before"], found["prompts"]) == (0, "c0002", "clusters", 20)


def test_clusters_may_be_set_and_the_run_s_own_settings_stay(command: Command, run: RunDir) -> None:
    _traffic(run)
    recorded = run.read_config_bytes()
    assert command(run.uri, "--set", "cluster.n_clusters=[6]")[0] == 0
    assert run.reclustering("c0002").require().metrics["clusters"] == 6
    assert run.read_config_bytes() == recorded
