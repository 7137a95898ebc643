"""Ablations are settings: each changes what is selected, and the whole pool and a clustering a language run through."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import SHARED, RunDir
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.monitoring.cluster_assigner import load_prompt_assigner
from compass_ray.row_selection import MethodSelection, open_pool, open_problems, select_by_method

Copy = Callable[..., RunDir]
NEW = ("round_robin", "placebo", "oracle", "own_repeated", "quantile_1", "quantile_5")
"""Methods that use more than the clusters of the run."""


def _chosen(config: RunConfig, run: RunDir, language: str = "sw") -> MethodSelection:
    pool = open_pool(config, run, language)
    [question] = open_problems(config, run, pool, [language])
    return select_by_method(config.select, "compass", question, pool, seed=config.seed)


def _added(chosen: MethodSelection) -> list[str]:
    rows = zip(chosen.rows["row_id"].to_pylist(), chosen.rows["role"].to_pylist(), strict=True)
    return [row_id for row_id, role in rows if role == "auxiliary"]


@pytest.mark.parametrize(
    "override",
    [
        "select.mode=deterministic",
        "select.mode=uniform",
        "select.weights=none",
        "select.weights=deficit",
        "select.delta=0.0",
        "select.delta=0.5",
        "select.paper_boundary_score=true",
        "select.budget=2.0",
        "pool.bias.keep=0.9",
        "pool.bias=null",
    ],
)
def test_a_setting_of_selection_changes_what_is_chosen(adapted: RunDir, small: RunConfig, override: str) -> None:
    plain, other = _chosen(small, adapted), _chosen(with_overrides(small, [override]), adapted)
    assert sorted(_added(plain)) != sorted(_added(other))
    assert other.selected == other.allocation.budget - other.allocation.unfilled


@pytest.mark.parametrize("override", ["cluster.method=ward", "cluster.pca_dims=null", "cluster.metric=euclidean"])
def test_a_setting_of_clusters_makes_other_clusters(copy: Copy, adapted: RunDir, small: RunConfig, override: str) -> None:
    run = copy("clusters", "selections", "adapters", "evaluations", "report")
    other = with_overrides(small, [override, "select.methods=[compass]"])
    pipeline.run_all(other, run, until="select")
    before, after = (r.clusters.map_table("assignments.arrow").select(["row_id", "cluster"]).to_pylist() for r in (adapted, run))
    assert len({row["cluster"] for row in after}) > 1
    assert before != after
    assert len(_added(_chosen(other, run))) == run.selection("compass", "sw").require().metrics["selected"]


def test_a_clustering_for_each_language_has_its_guide_prompts_in_the_fit(copy: Copy, small: RunConfig) -> None:
    run = copy("clusters", "selections", "adapters", "evaluations", "report")
    config = with_overrides(small, ["cluster.scope=per_language", f"select.methods=[compass, {', '.join(NEW)}]"])
    pipeline.run_all(config, run, until="select")
    assert not run.clusters.manifest()
    for language in config.languages:
        clusters, guide = run.clustering(language).verify(), run.guide_embeddings(language).read_embeddings()
        assert clusters.metrics["clusters"] > 1
        placed = run.clustering(language).read_array("guide_labels.npy")
        assert len(placed) == len(guide)
        counted = run.selection("compass", language).read_json("allocation.json")["clusters"]
        assert [c["n_eval"] for c in counted] == [int((placed == c["cluster"]).sum()) for c in counted]
        ours = run.selection("compass", language).require().metrics["selected"]
        rows = {method: run.selection(method, language).read_table("rows.parquet").num_rows for method in ("compass", *NEW)}
        assert ours > 0
        assert len(set(rows.values())) == 1, "every method has as many rows, added or repeated"
    with pytest.raises(ConfigError, match="scope"):
        load_prompt_assigner(run, config)


@pytest.mark.soak
def test_one_adapter_of_the_whole_pool_answers_for_every_language(copy: Copy, small: RunConfig) -> None:
    run = copy("report")
    config = with_overrides(small, ["select.methods=[target, random, compass, all]"])
    before = {code: run.adapter(code, "v0001").require() for code in config.languages}
    pipeline.run_all(config, run)
    assert {code: run.adapter(code, "v0001").require() for code in config.languages} == before
    assert {run.adapter(code, "all").path for code in config.languages} == {run.adapter(SHARED, "all").path}
    chosen = run.selection("all", "sw").read_table("rows.parquet")
    pool = set(run.pool.read_table("rows.parquet", ["row_id"])["row_id"].to_pylist())
    own = {code: _targets(run, code) for code in config.languages}
    assert set(chosen["row_id"].to_pylist()) <= pool
    for code in config.languages:
        of_code = {r["row_id"] for r in chosen.to_pylist() if r["language"] == code}
        assert of_code == own[code]
        record = run.selection("all", code).read_json("allocation.json")["by_language"][code]
        assert record["js_before"] == run.selection("compass", code).read_json("allocation.json")["js_before"]
        taken = sum(c["selected"] for c in record["clusters"]) + record["noise"]["selected"]
        assert taken == sum(c["n_aux"] for c in record["clusters"]) + record["noise"]["auxiliary"] > 0
        assert run.evaluation("all", code).require().metrics["items"] == 24


def _targets(run: RunDir, code: str) -> set[str]:
    """What the bias simulation left of a language's own rows."""
    rows = run.selection("target", code).read_table("rows.parquet", ["row_id"])
    return set(rows["row_id"].to_pylist())


def test_one_adapter_for_all_needs_one_clustering(small: RunConfig) -> None:
    with pytest.raises(ConfigError, match="one adapter for all languages"):
        with_overrides(small, ["cluster.scope=per_language", "select.methods=[compass, all]"])
