"""A cluster of a head and two nodes, and a run that nobody disturbed, to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.speed.random_encoder import TINY, random_encoder
from tests.cluster.clusters import Cluster, ended


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A head that takes no work, and two nodes of two CPUs."""
    cluster = Cluster()
    try:
        cluster.start("--num-cpus=0").add("--num-cpus=2", "--num-cpus=2")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options of `adapt`: four languages, three shards, an encoder that takes a while."""
    encoder = random_encoder(tmp_path_factory.mktemp("encoder") / "encoder", TINY, seed=0)
    changes = (
        "pool.sources=[{path: atlas, rows_per_language: 220}]",
        f"embed.encoder={encoder}",
        "cluster={method: kmeans, n_clusters: [12], n_init: 1, pca_dims: 16}",
        "select.methods=[compass]",
    )
    return ("--preset", "atlas-test", "--languages", "sw,hi,el,ko", *(word for each in changes for word in ("--set", each)))


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its adapters. Read it, never change it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    code, told = ended(cluster.command("compass_ray", "adapt", *settings, "--run", str(folder), "--until", "train"))
    assert code == 0, told
    return folder
