"""Simulations over a complete run: prompts are assigned once, changes are detected, and versions are trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import DriftConfig, RunConfig
from compass_ray.evaluation.simulation.drift import SimulationSettings, is_prepared, simulate
from compass_ray.evaluation.simulation.drift.prompt_bank import prepare_prompts, read_prompts
from compass_ray.evaluation.simulation.forgetting import ForgettingSettings, simulate_forgetting
from compass_ray.evaluation.simulation.forgetting.schedule import initial_overlay, variant_overlay
from compass_ray.evaluation.simulation.forgetting.settings import UpdateVariant
from compass_ray.evaluation.suites.first_run import find_simulated
from compass_ray.sources.atlas.facts import subjects
from tests.ray.in_process import no_workers

PLAN = SimulationSettings(seeds=1, period=700, thresholds=(0.15,))


def test_the_atlas_is_simulated_from_a_run(small: RunConfig, copy: Callable[..., RunDir]) -> None:
    run, config = copy(), small.model_copy(update={"drift": DriftConfig(permutations=500)})
    assert not is_prepared(run, "sw", PLAN)
    found = simulate(config, run, "sw", PLAN)
    assert is_prepared(run, "sw", PLAN)
    assert set(read_prompts(run, "sw").by_subject) == set(subjects())
    assert (found.scenario, found.rows[0].summary.transitions) == ("atlas", 4)
    before = run.simulation("sw", "prompts").require()
    assert simulate(config, run, "sw", PLAN) == found
    assert run.simulation("sw", "prompts").require() == before, "prompts are assigned once"


@pytest.mark.slow
def test_versions_are_trained_once_and_the_run_is_unchanged(small: RunConfig, copy: Callable[..., RunDir]) -> None:
    run, plan = copy(), ForgettingSettings(strategies=("static", "naive", "ecda"), buffers=(0.5,))
    config = small.model_copy(update={"languages": ("sw",)})
    before = run.complete_adapters()
    prepare_prompts(config, run, "sw", PLAN)
    reported: list[tuple[str, int, int]] = []
    found = simulate_forgetting(config, run, plan, progress=lambda *event: reported.append(event))
    assert reported == [("learn", 1, 1)]
    assert run.complete_adapters() == before
    first = initial_overlay(run, "sw", 0)
    naive, ecda, much = (
        variant_overlay(plan, first, way)
        for way in (UpdateVariant("naive"), UpdateVariant("ecda"), plan.buffer_variants(config)[0.5])
    )
    assert naive.adapter_versions("sw") == ecda.adapter_versions("sw") == ["v0002", "v0003", "v0004"]
    assert len(much.adapter("sw", "v0001").read_table("anchors.parquet")) > len(
        first.adapter("sw", "v0001").read_table("anchors.parquet")
    )
    assert [line.selection("v0002", "sw").require().metrics["selected"] for line in (naive, ecda)] == [
        ecda.selection("v0002", "sw").require().metrics["selected"]
    ] * 2
    stored = naive.adapter("sw", "v0004").require()
    with no_workers():
        assert simulate_forgetting(config, run, plan) == found
    assert naive.adapter("sw", "v0004").require() == stored, "a version is trained once"
    assert run.simulation("shared", "learning").read_json("results.json")["items"] == found.items
    assert find_simulated(run) == {"buffers"}
