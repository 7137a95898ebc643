"""Simulation with training: train all variants on Ray workers, then compute and store results and plots.

A unit of work is one language with one seed; complete versions are reused. Results are computed from the artifacts of the
run. The prompts must be prepared before (see `drift.prompt_bank`). COMPASS, section 5.5 and appendix D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compass_ray import ray_session
from compass_ray.artifacts import SHARED, Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.evaluation.simulation.forgetting import plots
from compass_ray.evaluation.simulation.forgetting.results import ForgettingResults, compute_results
from compass_ray.evaluation.simulation.forgetting.settings import ForgettingSettings
from compass_ray.evaluation.simulation.forgetting.trainer import ForgettingTrainer
from compass_ray.progress import Progress, silent
from compass_ray.report.style import to_png


def simulate_forgetting(
    config: RunConfig, run: RunDir, plan: ForgettingSettings, *, progress: Progress = silent
) -> ForgettingResults:
    """Train missing versions on Ray workers, and write ``simulations/shared/learning``.

    Raises:
        ArtifactError: the run has no clusters, or its prompts are not prepared.
        ConfigError: an invalid plan, or no machine that can hold a worker.
    """
    plan.validate()
    ray_session.start(config.resources)
    ray_session.require_worker_capacity(config.resources, "the simulation's training")
    units = [(language, seed) for seed in range(plan.seeds) for language in config.languages]
    settings = config.model_dump(mode="json")
    pool = ray_session.open_actor_pool(ForgettingWorker, config.resources, len(units), run.uri, settings, plan)
    done = pool.map_unordered(lambda each, unit: each.learn.remote(*unit), units)
    for number, _ in enumerate(done, start=1):
        progress("learn", number, len(units))
    return write_results(config, run, plan)


class ForgettingWorker:
    """Ray actor with a `ForgettingTrainer`."""

    def __init__(self, uri: str, settings: Mapping[str, Any], plan: ForgettingSettings) -> None:
        """Load the base model."""
        self.trainer = ForgettingTrainer(RunConfig.model_validate(settings), RunDir(uri), plan)

    def learn(self, language: str, seed: int) -> None:
        """Train the missing versions of one language with one seed."""
        self.trainer.train_language(language, seed)


def write_results(config: RunConfig, run: RunDir, plan: ForgettingSettings) -> ForgettingResults:
    """Compare all versions, and write ``simulations/shared/learning``.

    Raises:
        ArtifactError: answers are missing.
    """
    found = compute_results(config, run, plan)
    inputs = {each.name: each.require().fingerprint for each in (run.simulation(code, "prompts") for code in config.languages)}
    settings = plan.as_json() | {"update": config.update.identity(), "languages": list(config.languages)}
    writer = run.simulation(SHARED, "learning").begin(Identity("simulate", settings, inputs))
    writer.write_json("results.json", found.as_json())
    for name, png in render_plots(found).items():
        writer.write_bytes(name, png)
    writer.publish({"strategies": len(found.strategies)})
    return found


def render_plots(found: ForgettingResults) -> dict[str, bytes]:
    """Plots that have data, as PNG by file name."""
    rendered = {"plane.png": to_png(plots.plot_plane(found))}
    if found.buffers:
        rendered["buffers.png"] = to_png(plots.plot_buffers(found))
    if found.sweep:
        rendered["sweep.png"] = to_png(plots.plot_sweep(found))
    return rendered
