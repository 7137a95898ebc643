"""Where the versions of a language lie under a seed, and which subjects and windows they are made for.

Key property: windows depend on the placed prompts, the plan and the seed, so that every way of updating is given the same.
COMPASS, section 5.5 and appendix D.1. Nothing is trained here.
"""

from __future__ import annotations

from compass_ray.artifacts import RunDir, content_hash
from compass_ray.config import RunConfig
from compass_ray.continual.update.windows import Window
from compass_ray.evaluation.simulation.drift.prompt_bank import read_prompts
from compass_ray.evaluation.simulation.drift.scenarios import Scenario, choose_scenario
from compass_ray.evaluation.simulation.drift.streams import draw_stream
from compass_ray.evaluation.simulation.forgetting.overlay_run import OverlayRun
from compass_ray.evaluation.simulation.forgetting.settings import ForgettingSettings, UpdateVariant


def initial_overlay(run: RunDir, language: str, seed: int) -> OverlayRun:
    """Where the first version of a language lies under a seed."""
    return OverlayRun(run, "simulations", language, "lines", f"seed-{seed}", "first")


def variant_overlay(plan: ForgettingSettings, first: OverlayRun, way: UpdateVariant) -> OverlayRun:
    """Where the versions lie that a way makes of a first one; without any changes that is the first line."""
    return first if way.strategy == "static" else OverlayRun(first, f"fresh-{plan.fresh_share:g}", way.name)


def load_scenario(run: RunDir, plan: ForgettingSettings, language: str, seed: int) -> Scenario:
    """Which subjects are asked about."""
    return choose_scenario(plan.scenario, read_prompts(run, language).by_subject.keys(), seed)


def draw_windows(config: RunConfig, run: RunDir, plan: ForgettingSettings, language: str, seed: int) -> list[Window]:
    """The window after each change, of as many prompts as the monitor collects."""
    prompts, asked = read_prompts(run, language), load_scenario(run, plan, language, seed)
    drawn = draw_stream(prompts, asked.periods()[:-1], config.drift.window, plan.fresh_share, seed)
    parts = [drawn.clusters[drawn.period == place] for place in range(1, len(asked.groups))]
    return [Window(language, tuple(part.tolist()), content_hash(language, str(part.tolist()))) for part in parts]
