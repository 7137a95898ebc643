"""Nodes with a make-believe GPU come while languages wait for them, and go when nothing is to be done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import autoscaling
from tests.cluster.clusters import Cluster, ended, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MOST = 2
SETTINGS = (
    "select.methods=[compass]",
    "train.layout=per_language",
    "resources.gpus_per_worker=1",
    "resources.train_concurrency=2",
)
OPTIONS = ("--preset", "atlas-test", "--until", "train", *(word for each in SETTINGS for word in ("--set", each)))


@pytest.fixture
def growing() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        autoscaling.start(cluster, most=MOST, idle_minutes=0.1)
        yield cluster
    finally:
        cluster.close()


def _gpu_nodes(cluster: Cluster) -> int:
    return sum(node["Resources"].get("GPU", 0) == 1 for node in cluster.alive())


def test_gpu_nodes_come_while_languages_wait_and_go_when_idle(growing: Cluster, tmp_path: Path) -> None:
    assert _gpu_nodes(growing) == 0
    command = growing.command("compass_ray", "adapt", *OPTIONS, "--run", str(tmp_path / "run"))
    seen = set[int]()

    def done() -> bool:
        seen.add(_gpu_nodes(growing))
        return command.poll() is not None

    wait_until(done, "the run", seconds=400, every=0.2)
    code, told = ended(command)
    assert code == 0, told
    assert max(seen) == MOST
    assert {path.parts[-3] for path in tmp_path.glob("run/adapters/*/*/manifest.json")} == {"hi", "sw"}
    wait_until(lambda: _gpu_nodes(growing) == 0, "nodes that go")
