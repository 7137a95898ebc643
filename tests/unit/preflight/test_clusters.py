"""Doctor names degenerate clusters of a run that has clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from compass_ray.artifacts import SHARED, Artifact, Identity, RunDir
from compass_ray.clustering import fit_clusters
from compass_ray.config import ClusterConfig, RunConfig
from compass_ray.preflight import ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.clusters import check_clusters
from compass_ray.records.clustering import ClusterRecord, SweepRecord
from compass_ray.schemas import embeddings_schema

CONFIG = RunConfig.model_validate({"languages": ["sw", "hi"]})


def _publish_guide(artifact: Artifact, rows: np.ndarray) -> None:
    writer = artifact.begin(Identity("embed", {}, {}))
    table = pa.table({"row_id": [str(i) for i in range(len(rows))], "embedding": list(rows)})
    writer.write_table("part-00000.parquet", table.cast(embeddings_schema(rows.shape[1])))
    writer.publish({})


@pytest.fixture
def clustered(tmp_path: Path, run: RunDir) -> RunDir:
    """A run with eight k-means clusters, one of which is said to hold nearly all rows."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fitted = fit_clusters(ClusterConfig(method="kmeans", n_clusters=(8,), n_init=1, pca_dims=None), rows, seed=0)
    writer = run.clustering(SHARED).begin(Identity("cluster", {}, {}))
    writer.write_folder(fitted.clusterer.save)
    cards = tuple(ClusterRecord(cluster=k, size=900 if k == 0 else 10) for k in range(8))
    SweepRecord(method="kmeans", backend="cpu", clusters=cards).write(writer)
    writer.publish({})
    for code in CONFIG.languages:
        _publish_guide(run.guide_embeddings(code), rows[:5])
    return run


def test_a_run_without_clusters_is_not_checked(run: RunDir, machine: ClusterEnvironment) -> None:
    assert check_clusters(CheckContext(CONFIG, run, machine)) == []


def test_degenerate_clusters_are_noted_and_block_nothing(clustered: RunDir, machine: ClusterEnvironment) -> None:
    found = check_clusters(CheckContext(CONFIG, clustered, machine))
    assert found[0].found == "one of 8 clusters holds 93% of the assigned rows"
    assert len(found) == 2
    assert all(each.remedy and not each.blocking for each in found)
