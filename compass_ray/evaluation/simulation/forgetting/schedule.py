"""Schedule of a simulation with training: overlay runs, scenario and windows of a language with a seed.

Windows depend only on the prompts, the plan and the seed, so every variant gets the same windows. COMPASS, section 5.5 and
appendix D.1. Nothing is trained here.
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
    """The overlay run of the first version of a language with a seed."""
    return OverlayRun(run, "simulations", language, "lines", f"seed-{seed}", "first")


def variant_overlay(plan: ForgettingSettings, first: OverlayRun, variant: UpdateVariant) -> OverlayRun:
    """The overlay run of a variant; for ``static`` that of the first version itself."""
    return first if variant.strategy == "static" else OverlayRun(first, f"fresh-{plan.fresh_share:g}", variant.name)


def load_scenario(run: RunDir, plan: ForgettingSettings, language: str, seed: int) -> Scenario:
    """The scenario of a language with a seed."""
    return choose_scenario(plan.scenario, read_prompts(run, language).by_subject.keys(), seed)


def draw_windows(config: RunConfig, run: RunDir, plan: ForgettingSettings, language: str, seed: int) -> list[Window]:
    """Draw the window after each change, with as many prompts as the monitor collects."""
    prompts, scenario = read_prompts(run, language), load_scenario(run, plan, language, seed)
    stream = draw_stream(prompts, scenario.periods()[:-1], config.drift.window, plan.fresh_share, seed)
    parts = [stream.clusters[stream.period == index] for index in range(1, len(scenario.groups))]
    return [Window(language, tuple(part.tolist()), content_hash(language, str(part.tolist()))) for part in parts]
