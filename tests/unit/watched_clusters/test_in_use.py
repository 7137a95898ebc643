"""The pointer to the clustering that traffic is counted in, on a disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.artifacts import ArtifactError, Identity, LostRaceError, RunDir
from compass_ray.watched_clusters import FITTED, InUse, Place, in_use, use


def _clustering(run: RunDir, name: str, embeddings: str = "e1") -> None:
    run.refitted(name).begin(Identity("cluster", {"name": name}, {"embeddings": embeddings})).publish()


@pytest.fixture(params=["disk", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    made = RunDir(str(tmp_path / "run") if request.param == "disk" else f"{request.getfixturevalue('s3_uri')}/run")
    for name in (FITTED, "c0002", "c0003"):
        _clustering(made, name)
    return made


def test_without_a_pointer_it_is_what_the_cluster_stage_made(run: RunDir) -> None:
    assert in_use(run) == InUse(None, FITTED, ())
    assert run.refitted(FITTED).name == "clusters"


def test_every_clustering_that_was_in_use_stays_on_record(run: RunDir) -> None:
    use(run, in_use(run), "c0002", reason="stale", clock=lambda: 5.0)
    use(run, in_use(run), "c0003", reason="stale", clock=lambda: 6.0)
    use(run, in_use(run), FITTED, reason="by hand", clock=lambda: 7.0)
    found = in_use(run)
    assert (found.name, found.history) == (FITTED, ("c0002", "c0003"))
    assert found.raw == {"clusters": FITTED, "since": 7.0, "reason": "by hand", "history": ["c0002", "c0003"]}
    assert found.knows("c0002")
    assert not found.knows("c0004")


def test_of_two_that_read_the_same_one_is_refused(run: RunDir) -> None:
    found = in_use(run)
    use(run, found, "c0002", reason="first")
    with pytest.raises(LostRaceError):
        use(run, found, "c0003", reason="second")
    assert in_use(run).name == "c0002"


def test_a_clustering_that_is_not_whole_is_not_taken_into_use(run: RunDir) -> None:
    with pytest.raises(ArtifactError, match="clusterings/c0009 is missing"):
        use(run, in_use(run), "c0009", reason="stale")
    assert in_use(run).name == FITTED


def test_a_clustering_of_a_pool_that_was_made_anew_counts_no_more(run: RunDir) -> None:
    use(run, in_use(run), "c0002", reason="stale")
    _clustering(run, FITTED, embeddings="e2")
    assert in_use(run).name == FITTED
    _clustering(run, "c0003", embeddings="e2")
    use(run, in_use(run), "c0003", reason="stale")
    assert in_use(run).name == "c0003"


@pytest.mark.parametrize("said", [{}, {"clusters": 3}, {"clusters": "c0002", "history": "c0001"}])
def test_a_damaged_pointer_says_the_way_out(tmp_path: Path, said: object) -> None:
    run = RunDir(str(tmp_path / "run"))
    _clustering(run, FITTED)
    file = tmp_path / "run/serving/clusters.json"
    file.parent.mkdir()
    file.write_text(json.dumps(said))
    with pytest.raises(ArtifactError, match=r"delete it to count in 'clusters' again, or run 'compass-ray recluster"):
        in_use(run)


def test_the_mark_of_fitted_centroids_is_their_clustering() -> None:
    assert (Place("c0002").mark, Place("c0002", "sw", "v0002", "c0002:ab").mark) == ("c0002", "c0002:ab")
