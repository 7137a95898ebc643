"""Simulated users over a run that was made: their prompts are placed in a task, once, and the atlas's changes are found."""

from __future__ import annotations

from collections.abc import Callable

from compass_ray.artifacts import RunDir
from compass_ray.config import DriftConfig, RunConfig
from compass_ray.continual.simulation import Plan, placed, simulate
from compass_ray.continual.simulation.preparing import read_prompts
from compass_ray.sources.atlas.facts import subjects

PLAN = Plan(seeds=1, period=700, thresholds=(0.15,))


def test_the_atlas_is_simulated_from_a_run(small: RunConfig, copy: Callable[..., RunDir]) -> None:
    run, config = copy(), small.model_copy(update={"drift": DriftConfig(permutations=500)})
    assert not placed(run, "sw", PLAN)
    found = simulate(config, run, "sw", PLAN)
    assert placed(run, "sw", PLAN)
    assert set(read_prompts(run, "sw").asked) == set(subjects())
    assert (found.scenario, found.lines[0].summary.transitions) == ("atlas", 4)
    before = run.simulation("sw", "prompts").require()
    assert simulate(config, run, "sw", PLAN) == found
    assert run.simulation("sw", "prompts").require() == before, "prompts are placed once"
