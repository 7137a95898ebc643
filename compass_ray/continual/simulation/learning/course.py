"""Where the versions of a language lie under a seed, and which subjects and windows they are made for.

Key property: windows depend on the placed prompts, the plan and the seed, so that every way of updating is given the same.
COMPASS, section 5.5 and appendix D.1. Nothing is trained here.
"""

from __future__ import annotations

from compass_ray.artifacts import RunDir, content_hash
from compass_ray.config import RunConfig
from compass_ray.continual.simulation.learning.lines import Line
from compass_ray.continual.simulation.learning.plan import LearningPlan, Way
from compass_ray.continual.simulation.preparing import read_prompts
from compass_ray.continual.simulation.scenarios import Scenario, scenario
from compass_ray.continual.simulation.traffic import stream
from compass_ray.continual.update.windows import Window


def first_line(run: RunDir, language: str, seed: int) -> Line:
    """Where the first version of a language lies under a seed."""
    return Line(run, "simulations", language, "lines", f"seed-{seed}", "first")


def line_of(plan: LearningPlan, first: Line, way: Way) -> Line:
    """Where the versions lie that a way makes of a first one; without any changes that is the first line."""
    return first if way.strategy == "static" else Line(first, f"fresh-{plan.fresh_share:g}", way.name)


def scenario_of(run: RunDir, plan: LearningPlan, language: str, seed: int) -> Scenario:
    """Which subjects are asked about."""
    return scenario(plan.scenario, read_prompts(run, language).asked.keys(), seed)


def windows(config: RunConfig, run: RunDir, plan: LearningPlan, language: str, seed: int) -> list[Window]:
    """The window after each change, of as many prompts as the monitor collects."""
    prompts, asked = read_prompts(run, language), scenario_of(run, plan, language, seed)
    drawn = stream(prompts, asked.periods()[:-1], config.drift.window, plan.fresh_share, seed)
    parts = [drawn.clusters[drawn.period == place] for place in range(1, len(asked.groups))]
    return [Window(language, tuple(part.tolist()), content_hash(language, str(part.tolist()))) for part in parts]
