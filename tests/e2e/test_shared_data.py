"""The main job on real rows: a small run of the local Aya and Global-MMLU copies, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.languages import GLOBAL_MMLU

pytestmark = [pytest.mark.shared_data, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def finished(shared_data: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Every stage for two languages, on the suite's Ray."""
    import ray

    folder = tmp_path_factory.mktemp("shared")
    done = subprocess.run(
        [sys.executable, "-m", "compass_ray", "adapt", "--preset", "aya-local", "--run", "run", "--json"],
        cwd=folder,
        env={
            **os.environ,
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            "HF_DATASETS_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(folder / "run")
    return RunDir(str(folder / "run"))


def test_every_stage_is_whole(finished: RunDir) -> None:
    assert all(status.complete == status.total for status in pipeline.collect_status(finished.read_config(), finished))
    assert finished.read_config() == load_run_config("aya-local")


def test_the_pool_holds_both_sources_within_their_limits(finished: RunDir) -> None:
    rows = finished.pool.read_table("rows.parquet", ["source", "language"]).to_pylist()
    counts = Counter((row["source"], row["language"]) for row in rows)
    limits = {Path(source.path).name: source.rows_per_language for source in finished.read_config().pool.sources}
    assert {source for source, _ in counts} == set(limits)
    assert all(count <= (limits[source] or 0) for (source, _), count in counts.items())
    assert {*GLOBAL_MMLU, "hu", "wo", "zu"} <= {language for _, language in counts}


def test_languages_are_lent_rows_of_others_and_scored_on_their_items(finished: RunDir) -> None:
    config = finished.read_config()
    for code in config.languages:
        lent = finished.selection("compass", code).read_table("rows.parquet")
        lenders = {row["language"] for row in lent.to_pylist() if row["role"] == "auxiliary"}
        assert lenders
        assert code not in lenders
        results = finished.evaluation("compass", code).read_json("results.json")
        assert results["items"] == config.evaluate.items_per_language
        assert 0 <= results["accuracy"] <= 1


def test_where_the_data_lies_is_nowhere_in_the_run_s_settings(finished: RunDir, shared_data: Path) -> None:
    assert str(shared_data) not in finished.read_config().model_dump_json()
    assert str(shared_data) not in json.dumps(finished.pool.require().config)
