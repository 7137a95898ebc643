"""The task of the cluster stage returns what is degenerate, for the driver to print."""

from __future__ import annotations

from pathlib import Path

from compass_ray.artifacts import SHARED
from compass_ray.stages.cluster import _cluster
from tests.unit.clustering.versions.made_run import config_of, make_run


def test_few_clusters_are_told_at_the_end_of_the_stage(tmp_path: Path) -> None:
    config = config_of()
    run = make_run(str(tmp_path / "run"), config)
    [few] = _cluster(run.uri, config.model_dump(mode="json"), SHARED)
    assert few.startswith("clusters: the 4 clusters are as informative as 4.0 of equal size; ")
