"""A whole simulation that trains: its lines on workers that keep the base, then what they found, with pictures.

Key property: a unit of work is one language under one seed, and what is whole of it is not made again; findings are made from
what lies in the run. Placing prompts comes before (see `preparing`). COMPASS, section 5.5 and appendix D.
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
    """Train what is missing on Ray's workers, and write ``simulations/shared/learning``.

    Raises:
        ArtifactError: the run has no clusters, or its prompts are not placed.
        ConfigError: a plan that cannot be carried out, or no machine that can hold a worker.
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
    """Ray actor: a `Learner`."""

    def __init__(self, uri: str, settings: Mapping[str, Any], plan: ForgettingSettings) -> None:
        """Load the base model."""
        self.trainer = ForgettingTrainer(RunConfig.model_validate(settings), RunDir(uri), plan)

    def learn(self, language: str, seed: int) -> None:
        """Make what is missing of one language under one seed."""
        self.trainer.train_language(language, seed)


def write_results(config: RunConfig, run: RunDir, plan: ForgettingSettings) -> ForgettingResults:
    """Compare what was made, and write ``simulations/shared/learning``.

    Raises:
        ArtifactError: some has not been made.
    """
    found = compute_results(config, run, plan)
    inputs = {each.name: each.require().fingerprint for each in (run.simulation(code, "prompts") for code in config.languages)}
    settings = plan.as_json() | {"update": config.update.identity(), "languages": list(config.languages)}
    writer = run.simulation(SHARED, "learning").begin(Identity("simulate", settings, inputs))
    writer.write_json("results.json", found.as_json())
    for name, picture in render_plots(found).items():
        writer.write_bytes(name, picture)
    writer.publish({"strategies": len(found.strategies)})
    return found


def render_plots(found: ForgettingResults) -> dict[str, bytes]:
    """The pictures that there is something to draw of, by name, as PNG."""
    made = {"plane.png": to_png(plots.plot_plane(found))}
    if found.buffers:
        made["buffers.png"] = to_png(plots.plot_buffers(found))
    if found.sweep:
        made["sweep.png"] = to_png(plots.plot_sweep(found))
    return made
