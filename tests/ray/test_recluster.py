"""Re-cluster a complete run with the command, monitor in the new clustering, and update with moving centroids."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from compass_ray import cli, pipeline, registry
from compass_ray.artifacts import RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING, ClusterSpace, load_space_clusterer, read_active, resolve_space
from compass_ray.config import RunConfig, with_overrides
from compass_ray.continual.update import load_ready_window, run_update
from compass_ray.core.distribution import cluster_counts
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.references import read_reference, recompute_reference
from compass_ray.monitoring.retained_traffic import make_prompt_encoder
from compass_ray.monitoring.window_store import window_table
from compass_ray.records.references import ReferenceRecord
from compass_ray.row_selection import PoolView

pytestmark = pytest.mark.usefixtures("ray_cluster")

FILE = "windows/sw-000000024.parquet"
ASKED = 24


def _leave_window(run: RunDir, place: str | None = None) -> None:
    """Test questions of the language as its traffic, which the first clusters have not seen."""
    prompts = run.guide("sw").read_table("test.parquet")["question"].to_pylist()[:ASKED]
    entries = [
        {"language": "sw", "row_id": f"p{i}", "prompt": p, "cluster": 0, "coarse": 0, "time": float(i)}
        for i, p in enumerate(prompts)
    ]
    buffer = io.BytesIO()
    pq.write_table(window_table("sw", entries, place), buffer)
    run.write_monitor(FILE, buffer.getvalue())


def _stamps(run: RunDir) -> dict[str, int]:
    files = (p for p in Path(run.path).rglob("*") if p.is_file() and not {"attempts", "serving", "monitor"} & set(p.parts))
    return {str(p): p.stat().st_mtime_ns for p in files if p.name != "run.json"}


def test_a_reference_made_from_scratch_is_the_one_that_training_left(adapted: RunDir, small: RunConfig) -> None:
    for code in small.languages:
        left = ReferenceRecord.read(adapted.adapter(code, "v0001"))
        clusterer = load_space_clusterer(adapted, ClusterSpace(INITIAL_CLUSTERING))
        found = recompute_reference(
            small, adapted, INITIAL_CLUSTERING, code, "v0001", clusterer, make_prompt_encoder(small.embed)
        )
        assert found.asked_of == "the guide set"
        assert found.guide_distance == pytest.approx(left.guide_distance, abs=1e-6)
        assert found.model_copy(update={"asked_of": None, "guide_distance": left.guide_distance}) == left


@pytest.mark.slow
def test_a_run_is_re_clustered_and_an_update_selects_and_is_monitored_there(
    copy: Callable[..., RunDir], small: RunConfig
) -> None:
    run = copy("report")
    registry.promote(run, "sw", "v0001")
    _leave_window(run)
    before = _stamps(run)
    done = CliRunner().invoke(cli.app, ["recluster", run.uri, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["name"], result["before"], result["prompts"]) == ("c0002", INITIAL_CLUSTERING, ASKED)
    assert result["references"] == {"sw@v0001": "the guide set"}
    assert run.reclustering("c0002").verify()
    pipeline.run_all(small, run, until="evaluate")
    assert {name: stamp for name, stamp in _stamps(run).items() if name in before} == before

    config = with_overrides(small, ["update.centroid_step=0.5", "update.max_forgetting=100"])
    outcome = run_update(config, run, load_ready_window(run, WindowReady("sw", FILE, ASKED, "v0001")))
    selection, adapter = run.selection(outcome.to_version, "sw"), run.adapter("sw", outcome.to_version)
    assert selection.require().config["clusters"] == "c0002"
    now = PoolView.read(run.reclustering("c0002"))
    labels = dict(zip(now.row_id.to_pylist(), now.cluster.tolist(), strict=True))
    assert all(labels[row["row_id"]] == row["cluster"] for row in selection.read_table("rows.parquet").to_pylist())
    _moved_by_equation_two(run, outcome.to_version, config)
    assert adapter.read_json("reference.json")["clusters"] == read_active(run).name == "c0002"
    assert read_reference(run, "c0002", "sw", outcome.to_version) == ReferenceRecord.read(adapter)


def _moved_by_equation_two(run: RunDir, version: str, config: RunConfig) -> None:
    prompts = [row["prompt"] for row in pq.read_table(io.BytesIO(run.read_monitor(FILE) or b"")).to_pylist()]
    vectors, fitted = make_prompt_encoder(config.embed)(prompts), load_space_clusterer(run, ClusterSpace("c0002"))
    labels = fitted.assign(vectors)
    moved = run.adapter("sw", version).read_array("centroids.npy")
    for k, centroid in enumerate(fitted.centroids):
        mine = vectors[labels == k]
        expected = 0.5 * centroid + 0.5 * mine.mean(axis=0) if len(mine) else centroid
        np.testing.assert_allclose(moved[k], expected / np.linalg.norm(expected), atol=1e-5)
    place = resolve_space(run, "c0002", "sw", version)
    assert place.version == version
    coarse = run.reclustering("c0002").read_array("coarse.npy")
    counts = cluster_counts(coarse[load_space_clusterer(run, place).assign(vectors)], int(coarse.max()) + 1)
    assert run.adapter("sw", version).read_json("reference.json")["guide_counts"] == counts.tolist()
