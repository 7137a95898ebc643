"""Guide prompts whose vectors count their options: selection reads these, and traffic is compared with the prompts alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING, ClusterSpace, TrainedRows, load_space_clusterer, measure_guide_fit
from compass_ray.clustering.versions.reference_counts import count_by_coarse_cluster
from compass_ray.config import RunConfig
from compass_ray.monitoring.references import recompute_reference
from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.references import ReferenceRecord
from compass_ray.row_selection import SelectionProblem, open_pool, open_problems, select_by_method
from compass_ray.training.continual_state import _write_reference
from tests.unit.clustering.versions.made_run import DIMENSIONS, WORDS, config_of, encode, make_run, prompts_of, write_version

PROMPTS = prompts_of(WORDS[:2], 16, seed=3000)
WITH_OPTIONS = encode([f"{prompt} {WORDS[2 + i % 2]} {WORDS[2 + i % 2]}" for i, prompt in enumerate(PROMPTS)])
"""The options are about other words than the prompts, so that they change the clusters."""


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return config_of()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> RunDir:
    """A run whose guide set has both vectors, with its selection and first version."""
    made = make_run(str(tmp_path_factory.mktemp("options") / "run"), config)
    writer = made.guide_embeddings("sw").begin(Identity("embed", {"again": 1}, {}))
    columns = {"row_id": pa.array([f"g{i}" for i in range(16)], pa.string())}
    for name, rows in (("embedding", encode(PROMPTS)), (schemas.WITH_OPTIONS, WITH_OPTIONS)):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIMENSIONS)
    writer.write_table("part-00000.parquet", pa.table(columns))
    writer.publish()
    selection = made.selection("compass", "sw").begin(Identity("select", {"again": 1}, {}))
    chosen = select_by_method(config.select, "compass", _problem(config, made), open_pool(config, made, "sw"), seed=0)
    selection.write_table("rows.parquet", chosen.rows)
    chosen.allocation.write(selection)
    selection.publish()
    write_version(made, config, "sw", "v0001")
    return made


def _problem(config: RunConfig, run: RunDir) -> SelectionProblem:
    [problem] = open_problems(config, run, open_pool(config, run, "sw"), ["sw"])
    return problem


def _labels(run: RunDir, vectors: np.ndarray) -> np.ndarray:
    return load_space_clusterer(run, ClusterSpace(INITIAL_CLUSTERING)).assign(vectors)


def test_selection_reads_the_vectors_with_options(run: RunDir, config: RunConfig) -> None:
    problem, allocation = _problem(config, run), AllocationRecord.read(run.selection("compass", "sw"))
    with_options = _labels(run, WITH_OPTIONS)
    assert problem.guide_labels.tolist() == with_options.tolist()
    assert problem.guide_vectors == pytest.approx(WITH_OPTIONS)
    assert allocation.guide_counts[:-1].tolist() == np.bincount(with_options, minlength=4).tolist()


def test_references_count_the_prompts_alone(run: RunDir, config: RunConfig) -> None:
    coarse = run.clusters.read_array("coarse.npy")
    alone, with_options = (
        count_by_coarse_cluster(_labels(run, vectors).astype(np.int64), coarse) for vectors in (encode(PROMPTS), WITH_OPTIONS)
    )
    assert alone != with_options
    trained = TrainedRows.read(config, [run.selection("compass", "sw")], run.clusters)
    writer = run.artifact("scratch").begin(Identity("train", {}, {}))
    _write_reference(run, run.selection("compass", "sw"), run.clusters, trained, writer)
    written = ReferenceRecord.read(run.artifact("scratch"))
    assert list(written.guide_counts) == alone
    clusterer = load_space_clusterer(run, ClusterSpace(INITIAL_CLUSTERING))
    recomputed = recompute_reference(config, run, INITIAL_CLUSTERING, "sw", "v0001", clusterer, encode)
    assert list(recomputed.guide_counts) == alone
    assert {"guide_distance": written.guide_distance, "guide_noise": written.guide_noise} == measure_guide_fit(
        run, "sw", lambda: clusterer
    )


def test_without_such_vectors_nothing_is_counted_twice(tmp_path: Path, config: RunConfig) -> None:
    made = make_run(str(tmp_path / "run"), config)
    assert AllocationRecord.read(made.selection("compass", "sw")).asked is None
