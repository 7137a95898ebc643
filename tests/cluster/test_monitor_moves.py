"""The monitor of a run whose machine is taken away: it goes on at another one, with all that it had acknowledged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.clusters import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MONITOR = "ray::MonitorActor"


def _told(lines: Iterable[str]) -> Any:
    """What the driver says first; Ray has its own say between."""
    return json.loads(next(line for line in lines if line.startswith("{")))


def test_a_monitor_whose_node_is_killed_goes_on_at_another(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run, ignore=shutil.ignore_patterns("train_runs"))
    cluster.add("--num-cpus=2")  # one to spare, whoever was killed before
    driver = cluster.command("tests.cluster.observer", str(run))
    assert driver.stdin
    assert driver.stdout
    before = _told(driver.stdout)
    assert (before["prompts"], before["ratings"]) == (60, {"good": 0, "bad": 1})
    (monitor,) = cluster.processes(MONITOR)
    cluster.node_of(monitor).kill()
    out, err = driver.communicate("now\n", timeout=240)
    assert driver.returncode == 0, err
    assert _told(out.splitlines()) == before
