"""Simulated users over a run that was made: prompts placed once, the atlas's changes found, and lines of versions made."""

from __future__ import annotations

from collections.abc import Callable

from compass_ray.artifacts import RunDir
from compass_ray.config import DriftConfig, RunConfig
from compass_ray.continual.simulation import Plan, placed, simulate
from compass_ray.continual.simulation.learning import LearningPlan, learn
from compass_ray.continual.simulation.learning.course import first_line, line_of
from compass_ray.continual.simulation.learning.plan import Way
from compass_ray.continual.simulation.preparing import prepare, read_prompts
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


def test_lines_of_versions_are_made_once_and_leave_the_run_alone(small: RunConfig, copy: Callable[..., RunDir]) -> None:
    run, plan = copy(), LearningPlan(strategies=("static", "naive", "ecda"), buffers=(0.5,))
    config = small.model_copy(update={"languages": ("sw",)})
    before = run.whole_adapters()
    prepare(config, run, "sw", PLAN)
    told: list[tuple[str, int, int]] = []
    found = learn(config, run, plan, progress=lambda *what: told.append(what))
    assert told == [("learn", 1, 1)]
    assert run.whole_adapters() == before
    first = first_line(run, "sw", 0)
    naive, ecda, much = (line_of(plan, first, way) for way in (Way("naive"), Way("ecda"), plan.buffered(config)[0.5]))
    assert naive.adapter_versions("sw") == ecda.adapter_versions("sw") == ["v0002", "v0003", "v0004"]
    assert len(much.adapter("sw", "v0001").read_table("anchors.parquet")) > len(
        first.adapter("sw", "v0001").read_table("anchors.parquet")
    )
    assert [line.selection("v0002", "sw").require().metrics["selected"] for line in (naive, ecda)] == [
        ecda.selection("v0002", "sw").require().metrics["selected"]
    ] * 2
    kept = naive.adapter("sw", "v0004").require()
    assert learn(config, run, plan) == found
    assert naive.adapter("sw", "v0004").require() == kept, "a version is made once"
    assert run.simulation("shared", "learning").read_json("results.json")["items"] == found.items
