"""The pointer to the active clustering, on a disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.artifacts import ArtifactError, ConflictError, Identity, RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING, ActiveClustering, ClusterSpace, read_active, set_active


def _clustering(run: RunDir, name: str, embeddings: str = "e1") -> None:
    run.reclustering(name).begin(Identity("cluster", {"name": name}, {"embeddings": embeddings})).publish()


@pytest.fixture(params=["disk", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    made = RunDir(str(tmp_path / "run") if request.param == "disk" else f"{request.getfixturevalue('s3_uri')}/run")
    for name in (INITIAL_CLUSTERING, "c0002", "c0003"):
        _clustering(made, name)
    return made


def test_without_a_pointer_the_initial_clustering_is_active(run: RunDir) -> None:
    assert read_active(run) == ActiveClustering(None, INITIAL_CLUSTERING, ())
    assert run.reclustering(INITIAL_CLUSTERING).name == "clusters"


def test_every_clustering_that_was_active_stays_in_the_history(run: RunDir) -> None:
    set_active(run, read_active(run), "c0002", reason="stale", clock=lambda: 5.0)
    set_active(run, read_active(run), "c0003", reason="stale", clock=lambda: 6.0)
    set_active(run, read_active(run), INITIAL_CLUSTERING, reason="by hand", clock=lambda: 7.0)
    found = read_active(run)
    assert (found.name, found.history) == (INITIAL_CLUSTERING, ("c0002", "c0003"))
    assert found.pointer == {"clusters": INITIAL_CLUSTERING, "since": 7.0, "reason": "by hand", "history": ["c0002", "c0003"]}
    assert found.was_ever_active("c0002")
    assert not found.was_ever_active("c0004")


def test_one_of_two_concurrent_changes_is_rejected(run: RunDir) -> None:
    found = read_active(run)
    set_active(run, found, "c0002", reason="first")
    with pytest.raises(ConflictError):
        set_active(run, found, "c0003", reason="second")
    assert read_active(run).name == "c0002"


def test_an_incomplete_clustering_cannot_be_activated(run: RunDir) -> None:
    with pytest.raises(ArtifactError, match="clusterings/c0009 is missing"):
        set_active(run, read_active(run), "c0009", reason="stale")
    assert read_active(run).name == INITIAL_CLUSTERING


def test_a_clustering_of_an_earlier_pool_is_ignored(run: RunDir) -> None:
    set_active(run, read_active(run), "c0002", reason="stale")
    _clustering(run, INITIAL_CLUSTERING, embeddings="e2")
    assert read_active(run).name == INITIAL_CLUSTERING
    _clustering(run, "c0003", embeddings="e2")
    set_active(run, read_active(run), "c0003", reason="stale")
    assert read_active(run).name == "c0003"


@pytest.mark.parametrize("said", [{}, {"clusters": 3}, {"clusters": "c0002", "history": "c0001"}])
def test_a_damaged_pointer_error_says_what_to_do(tmp_path: Path, said: object) -> None:
    run = RunDir(str(tmp_path / "run"))
    _clustering(run, INITIAL_CLUSTERING)
    file = tmp_path / "run/serving/clusters.json"
    file.parent.mkdir()
    file.write_text(json.dumps(said))
    with pytest.raises(ArtifactError, match=r"delete it to use 'clusters' again, or run 'compass-ray recluster"):
        read_active(run)


def test_the_space_id_of_fitted_centroids_is_their_clustering() -> None:
    assert (ClusterSpace("c0002").space_id, ClusterSpace("c0002", "sw", "v0002", "c0002:ab").space_id) == ("c0002", "c0002:ab")
