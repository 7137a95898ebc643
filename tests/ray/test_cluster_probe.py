"""What a cluster says of itself and of the run directory, from the suite's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.ray_session import cluster_resources, read_capacity
from compass_ray.ray_session.cluster_probe import probe_cluster

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_cluster_without_autoscaler_is_known_not_to_grow() -> None:
    found = read_capacity()
    assert found.types == ()
    cpus = cluster_resources()["CPU"]
    assert found.max_count({"CPU": 0.5}) == 2 * cpus
    assert found.fits({"CPU": cpus})
    assert not found.fits({"CPU": cpus + 1})


@pytest.mark.parametrize("where", ["disk", "object store"])
def test_every_machine_writes_and_sees_what_the_driver_wrote(tmp_path: Path, s3_uri: str, where: str) -> None:
    run = RunDir(str(tmp_path / "run") if where == "disk" else s3_uri)
    found = probe_cluster(run)
    assert found.is_cluster
    assert [(w.error, w.sees_driver) for w in found.probes] == [("", True)] * 2
    assert found.probes[0].versions == found.probes[1].versions
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_written_is_told_without_asking_anyone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    [mine] = probe_cluster(RunDir(str(tmp_path / "file" / "run"))).probes
    assert mine.error
