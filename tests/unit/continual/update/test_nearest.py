"""`select.mode: nearest` in an update: the window's prompts take the place of the guide prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING
from compass_ray.config import RunConfig
from compass_ray.continual.update.selection import choose_rows
from compass_ray.continual.update.spec import UpdateSpec
from compass_ray.continual.update.window_clusters import ClusteredWindow, with_vectors
from compass_ray.continual.update.windows import Window
from compass_ray.monitoring.window_store import window_table
from compass_ray.row_selection import PoolView
from tests.unit.clustering.versions.made_run import WORDS, config_of, encode, make_run, prompts_of

UPDATE = UpdateSpec("sw", "v0001", "v0002", "abc")
PROMPTS = prompts_of(WORDS[2:4], 20, seed=5000)


@pytest.fixture
def config() -> RunConfig:
    config = config_of()
    select = config.select.model_copy(update={"mode": "nearest", "weights": "deficit", "budget": 0.3})
    return config.model_copy(update={"select": select, "update": config.update.model_copy(update={"budget": 0.2})})


@pytest.fixture
def run(tmp_path: Path, config: RunConfig) -> RunDir:
    return make_run(str(tmp_path / "run"), config)


def _window(run: RunDir) -> ClusteredWindow:
    from compass_ray.clustering import load_clusterer

    with run.clusters.local_folder("clusterer.json", "clusterer.npz") as folder:
        labels = load_clusterer(folder).assign(encode(PROMPTS))
    return ClusteredWindow(INITIAL_CLUSTERING, labels.astype(np.int64), vectors=encode(PROMPTS))


def test_an_update_takes_the_rows_nearest_to_the_window(run: RunDir, config: RunConfig) -> None:
    chosen = choose_rows(config, run, _window(run), UPDATE).rows.to_pylist()
    pool = PoolView.read(run.clusters)
    best = (pool.unit_vectors(np.arange(len(pool))) @ encode(PROMPTS).T).max(axis=1)
    similarity = dict(zip(pool.row_id.to_pylist(), best.tolist(), strict=True))
    assert chosen
    assert all(row["score"] == pytest.approx(similarity[row["row_id"]], abs=2e-3) for row in chosen)


def test_without_a_retained_prompt_rows_are_drawn_by_the_paper_s_rule(run: RunDir, config: RunConfig) -> None:
    bare = ClusteredWindow(INITIAL_CLUSTERING, _window(run).labels)
    stochastic = config.model_copy(update={"select": config.select.model_copy(update={"mode": "stochastic"})})
    assert choose_rows(config, run, bare, UPDATE).rows.equals(choose_rows(stochastic, run, bare, UPDATE).rows)


def test_an_update_from_scratch_uses_guide_set_and_window(run: RunDir, config: RunConfig) -> None:
    full = config.model_copy(update={"update": config.update.model_copy(update={"strategy": "full"})})
    rows = [row for row in choose_rows(full, run, _window(run), UPDATE).rows.to_pylist() if row["role"] == "auxiliary"]
    pool = PoolView.read(run.clusters)
    prompts = np.concatenate([run.guide_embeddings("sw").read_embeddings(), encode(PROMPTS)])
    best = (pool.unit_vectors(np.arange(len(pool))) @ prompts.T).max(axis=1)
    similarity = dict(zip(pool.row_id.to_pylist(), best.tolist(), strict=True))
    assert rows
    assert all(row["score"] == pytest.approx(similarity[row["row_id"]], abs=2e-3) for row in rows)


def test_prompts_that_are_retained_are_embedded(run: RunDir) -> None:
    entries = [{"row_id": "w1", "prompt": PROMPTS[0], "time": 1.0, "cluster": 0, "coarse": 0, "embedding": None}]
    window = Window("sw", (0, 0), "abc", prompts=window_table("sw", entries))
    clustered = ClusteredWindow(INITIAL_CLUSTERING, np.zeros(2, np.int64))
    found = with_vectors(clustered, window, encode).vectors
    assert found is not None
    assert found == pytest.approx(encode(PROMPTS[:1]))
    assert with_vectors(clustered, Window("sw", (0, 0), "abc"), encode).vectors is None
