"""What a cluster says of itself and of the run directory, from the suite's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.ray_session import capacity, resources
from compass_ray.ray_session.surroundings import surroundings

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_cluster_without_autoscaler_is_known_not_to_grow() -> None:
    found = capacity()
    assert found.types == ()
    cpus = resources()["CPU"]
    assert found.at_most({"CPU": 0.5}) == 2 * cpus
    assert found.fits({"CPU": cpus})
    assert not found.fits({"CPU": cpus + 1})


@pytest.mark.parametrize("where", ["disk", "object store"])
def test_every_machine_writes_and_sees_what_the_driver_wrote(tmp_path: Path, s3_uri: str, where: str) -> None:
    run = RunDir(str(tmp_path / "run") if where == "disk" else s3_uri)
    found = surroundings(run)
    assert found.cluster
    assert [(w.error, w.sees_driver) for w in found.witnesses] == [("", True)] * 2
    assert found.witnesses[0].versions == found.witnesses[1].versions
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_written_is_told_without_asking_anyone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    [mine] = surroundings(RunDir(str(tmp_path / "file" / "run"))).witnesses
    assert mine.error
