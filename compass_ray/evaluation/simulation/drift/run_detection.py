"""Drift simulation of a language: replay every stream with every trigger, score the alarms, and store results and plots.

Streams differ only in the seed and are the same for every trigger, so triggers are compared in pairs. The result depends
only on the stored prompts, the settings of the run and the plan. COMPASS, appendix D.2. Nothing is trained.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.core.seeds import generator
from compass_ray.evaluation.simulation.drift import plots
from compass_ray.evaluation.simulation.drift.metrics import DetectionOutcome, score_alarms, summarize_outcomes
from compass_ray.evaluation.simulation.drift.prompt_bank import initial_references, prepare_prompts, read_prompts
from compass_ray.evaluation.simulation.drift.replay_monitor import ReplayMonitor, UpdatePolicy, accept_all
from compass_ray.evaluation.simulation.drift.results import DetectionResult, DetectionRow, StreamExample, as_json
from compass_ray.evaluation.simulation.drift.scenarios import Period, choose_scenario
from compass_ray.evaluation.simulation.drift.settings import SimulationSettings
from compass_ray.evaluation.simulation.drift.streams import PromptBank, draw_stream, measure_shifts
from compass_ray.evaluation.simulation.drift.triggers import TriggerVariant, build_trigger_variants
from compass_ray.progress import Progress, silent
from compass_ray.report.style import to_png


def simulate(
    config: RunConfig, run: RunDir, language: str, plan: SimulationSettings, *, progress: Progress = silent
) -> DetectionResult:
    """Prepare the prompts if needed, replay every stream, and write ``simulations/<language>/detection``.

    Raises:
        ArtifactError: the run has no clusters or guide set yet.
        ConfigError: the plan does not fit this run.
    """
    plan.validate(config.drift.window)
    prompts = prepare_prompts(config, run, language, plan).require()
    found = replay_streams(config, run, language, plan, progress=progress)
    settings = plan.as_json() | {"drift": config.drift.fingerprint_settings(), "seed": config.seed}
    writer = run.simulation(language, "detection").begin(Identity("simulate", settings, {"prompts": prompts.fingerprint}))
    writer.write_json("results.json", as_json(found))
    writer.write_bytes("divergence.png", to_png(plots.plot_divergence(found, plan.period)))
    writer.write_bytes("delay.png", to_png(plots.plot_delay(found)))
    writer.publish({"scenario": found.scenario, **asdict(found.rows[0].summary)})
    return found


def replay_streams(
    config: RunConfig,
    run: RunDir,
    language: str,
    plan: SimulationSettings,
    *,
    updates: UpdatePolicy = accept_all,
    progress: Progress = silent,
) -> DetectionResult:
    """Replay every stream with every trigger; ``updates`` decides which versions are served after an alarm."""
    prompts = read_prompts(run, language)
    outcomes: dict[tuple[str, float], list[DetectionOutcome]] = {}
    examples: list[StreamExample] = []
    shifts: list[list[float]] = []
    for seed in range(plan.seeds):
        scenario = choose_scenario(plan.scenario, prompts.by_subject.keys(), seed)
        periods = scenario.periods()
        shifts.append(measure_shifts(prompts, periods, plan.fresh_share))
        stream = draw_stream(prompts, periods, plan.period, plan.fresh_share, seed)
        for each in _trigger_variants(config, run, language, plan, prompts, periods[0], seed):
            checks = ReplayMonitor(each.trigger, each.drift, prompts, seed, language, updates).replay(stream, each.reference)
            outcome = score_alarms(checks, periods, plan.period, config.drift.window)
            outcomes.setdefault((each.name, each.threshold), []).append(outcome)
            if seed == 0:
                examples.append(StreamExample(each.name, each.threshold, checks))
                first_periods = periods
        progress("simulate", seed + 1, plan.seeds)
    rows = tuple(
        DetectionRow(*key, summarize_outcomes(found, shifts, config.drift.min_divergence)) for key, found in outcomes.items()
    )
    mean_shifts = tuple(np.mean(shifts, axis=0).tolist())
    return DetectionResult(language, scenario.name, first_periods, mean_shifts, rows, tuple(examples))


def _trigger_variants(
    config: RunConfig, run: RunDir, language: str, plan: SimulationSettings, prompts: PromptBank, first: Period, seed: int
) -> list[TriggerVariant]:
    rng = generator(seed, "first", language)
    guide = prompts.guide_clusters(first.known_subjects)
    prompts_only, paper = initial_references(config, run, language, prompts, guide, rng)
    return build_trigger_variants(config.drift, prompts_only, paper, plan.thresholds)
