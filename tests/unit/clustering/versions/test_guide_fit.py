"""The guide fit of a reference, against distances measured one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import cosine

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering import fit_clusters
from compass_ray.clustering.versions import measure_guide_fit
from compass_ray.config import parse_config
from tests.unit.fakes import BASE


def test_how_the_guide_set_fits_is_measured_prompt_by_prompt(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = RunDir(str(tmp_path / "run"))
    config = parse_config({"languages": ["sw"], "train": {"base_model": BASE}, "cluster": {"method": "hdbscan"}})
    centres = rng.normal(size=(3, 8))
    pool = _unit(np.repeat(centres, 60, axis=0) + 0.05 * rng.normal(size=(180, 8)))
    guide = _unit(np.vstack([centres + 0.1 * rng.normal(size=(3, 8)), rng.normal(size=(9, 8))]))
    clusterer = fit_clusters(config.cluster, pool, seed=0).clusterer
    assert measure_guide_fit(run, "sw", lambda: clusterer) == {}
    rows = {"row_id": [str(n) for n in range(12)], "vector": list(guide)}
    writer = run.guide_embeddings("sw").begin(Identity("embed", {}, {}))
    writer.write_table("part-00000.parquet", pa.table(list(rows.values()), schema=schemas.embeddings_schema(8)))
    writer.publish()
    labels, centroids = clusterer.assign(guide), clusterer.centroids
    every = [[cosine(row, centroid) for centroid in centroids] for row in guide]
    expected = [min(row) if label < 0 else row[label] for row, label in zip(every, labels, strict=True)]
    found = measure_guide_fit(run, "sw", lambda: clusterer)
    assert found == {"guide_distance": pytest.approx(np.mean(expected), abs=1e-5), "guide_noise": np.mean(labels < 0)}
    assert 0 < found["guide_noise"] < 1


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
