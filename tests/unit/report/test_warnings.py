"""Warnings about noise, larger gaps, and budgets without enough candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compass_ray.artifacts import Artifact, RunDir
from compass_ray.report.run_reader import RunReader
from compass_ray.report.warnings import find_warnings

Publish = Callable[[Artifact, dict[str, Any]], None]


def _changed(run: RunDir, publish: Publish, language: str, **change: Any) -> RunDir:
    artifact = run.selection("compass", language)
    files = {
        "rows.parquet": artifact.read_table("rows.parquet"),
        "allocation.json": artifact.read_json("allocation.json") | change,
    }
    publish(artifact, files)
    return run


def test_a_selection_without_problems_has_no_warnings(run: RunDir) -> None:
    assert find_warnings(RunReader(run), ("sw", "hi")) == []


def test_a_run_without_selections_has_no_warnings(empty: RunDir) -> None:
    assert find_warnings(RunReader(empty), ("sw",)) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"js_before": 0.1, "js_after": 0.25},
            "the divergence; languages: Swahili (sw); largest increase: Swahili (sw), 0.100 to 0.250 bits",
        ),
        ({"unfilled": 7}, "7 of "),
        ({"noise": {"target": 900, "auxiliary": 99999, "guide": 0}}, "of the pool is noise, which is never selected"),
        ({"noise": {"target": 0, "auxiliary": 0, "guide": 9999}}, "most guide prompts of Swahili (sw) are noise"),
    ],
)
def test_problems_are_reported_with_their_numbers(run: RunDir, publish: Publish, change: dict[str, Any], text: str) -> None:
    [warning] = find_warnings(RunReader(_changed(run, publish, "sw", **change)), ("sw", "hi"))
    assert text in warning


def test_overfilled_clusters_are_named_with_their_shares(run: RunDir, publish: Publish) -> None:
    clusters = run.selection("compass", "sw").read_json("allocation.json")["clusters"]
    filled = [each | ({"selected": 90} if each["cluster"] == 8 else {}) for each in clusters]
    [warning] = find_warnings(RunReader(_changed(run, publish, "sw", clusters=filled)), ("sw", "hi"))
    guide = clusters[8]["n_eval"] / (sum(each["n_eval"] for each in clusters) + 4)
    own = sum(each["n_target"] for each in clusters) + 10
    after = (clusters[8]["n_target"] + 90) / (own + sum(each["selected"] for each in filled))
    assert "overfilled clusters (1): subject 0 (8) in Swahili (sw)" in warning
    assert f"({after:.1%} of the training rows, {guide:.1%} of the guide prompts)" in warning


def test_degenerate_clusters_are_reported(run: RunDir, publish: Publish) -> None:
    files = {"sweep.json": run.clusters.read_json("sweep.json")}
    files["sweep.json"]["clusters"][3]["size"] = 9000
    publish(run.clusters, files)
    large, few = find_warnings(RunReader(run), ("sw", "hi"))
    assert large.startswith("clusters: one of 16 clusters holds ")
    assert "of equal size" in few
