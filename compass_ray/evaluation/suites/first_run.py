"""What entries need beside the stages, made in the first run of the unchanged preset: simulations and other benchmarks.

Complete parts are kept, so a second call makes only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext

from compass_ray import ray_session
from compass_ray.artifacts import SHARED, RunDir
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.continual.strategies import STRATEGIES
from compass_ray.evaluation.experiments.run_variants import ProgressFactory
from compass_ray.evaluation.simulation.forgetting import BETAS, BUFFERS, LAMBDAS, ForgettingSettings
from compass_ray.evaluation.simulation.forgetting.settings import REQUIRED_STRATEGIES
from compass_ray.evaluation.suites.suite_files import IN_FIRST_RUN, UPDATES, SuiteEntry, SuitePreset
from compass_ray.progress import Progress, silent


def find_last_stage(entries: Iterable[SuiteEntry]) -> str | None:
    """The last stage that the entries need: the clusters if all are simulations, else None, which is every stage."""
    return "cluster" if all(entry.kind in ("drift", *UPDATES) for entry in entries) else None


def restrict_languages(config: RunConfig, preset: SuitePreset) -> RunConfig:
    """The configuration with the languages in which updates are simulated."""
    return config.model_copy(update={"languages": config.languages[: preset.update_languages]})


def plan_updates(kinds: Iterable[str], seeds: int) -> ForgettingSettings:
    """The updates that entries of these kinds need together."""
    wanted = {*kinds}
    return ForgettingSettings(
        seeds=seeds,
        strategies=tuple(STRATEGIES) if "strategies" in wanted else REQUIRED_STRATEGIES,
        buffers=BUFFERS if "buffers" in wanted else (),
        lambdas=LAMBDAS if "sweep" in wanted else (),
        betas=BETAS if "sweep" in wanted else (),
    )


def check_entries(entries: Mapping[str, SuiteEntry], config: RunConfig) -> None:
    """Check that tasks can be evaluated, before anything is trained.

    Raises:
        ConfigError: tasks without a folder of rows or without lm-evaluation-harness, or an invalid setting of an entry.
    """
    for name, entry in entries.items():
        if entry.kind != "harness":
            continue
        from compass_ray.harness.layouts import harness_folder

        harness_folder()
        if with_overrides(config, entry.settings).evaluate.harness.data is None:
            raise ConfigError(f"{name} needs the rows of {', '.join(entry.tasks)}; add --set evaluate.harness.data=FOLDER")


def run_entries(
    entries: Mapping[str, SuiteEntry],
    preset: SuitePreset,
    config: RunConfig,
    run: RunDir,
    watch: ProgressFactory = lambda: nullcontext(silent),
) -> dict[str, str]:
    """Make what the entries need in a run whose stages are complete; returns reasons of failures by entry.

    A failure does not stop the other entries.
    """
    failures = {}
    for name, entry in entries.items():
        if entry.kind not in IN_FIRST_RUN:
            continue
        try:
            with watch() as progress:
                _run_entry(entry, preset, config, run, progress)
        except Exception as error:  # the results of the other entries are written all the same
            failures[name] = ray_session.user_message(error)
    return failures


def _run_entry(entry: SuiteEntry, preset: SuitePreset, config: RunConfig, run: RunDir, progress: Progress) -> None:
    if entry.kind == "drift":
        _simulate_drift(config, run, progress)
    elif entry.kind == "harness":
        _evaluate_tasks(entry, config, run, progress)
    else:
        _simulate_updates(entry, preset, config, run, progress)


def _simulate_drift(config: RunConfig, run: RunDir, progress: Progress) -> None:
    from compass_ray.evaluation.simulation import drift

    for code in config.languages:
        if run.simulation(code, "detection").manifest() is None:
            drift.simulate(config, run, code, drift.SimulationSettings(), progress=progress)


def _simulate_updates(entry: SuiteEntry, preset: SuitePreset, config: RunConfig, run: RunDir, progress: Progress) -> None:
    """Train missing versions. One file has the results of all kinds, so it is written again with those that it had."""
    from compass_ray.evaluation.simulation import drift, forgetting

    chosen = restrict_languages(config, preset)
    for code in chosen.languages:
        drift.prepare_prompts(chosen, run, code, drift.SimulationSettings())
    plan = plan_updates({entry.kind, *find_simulated(run)}, preset.update_seeds)
    forgetting.simulate_forgetting(chosen, run, plan, progress=progress)


def find_simulated(run: RunDir) -> set[str]:
    """Kinds of simulated updates with results in a run, for windows of new subjects alone."""
    artifact = run.simulation(SHARED, "learning")
    manifest = artifact.manifest()
    if manifest is None or manifest.config.get("fresh_share", 1.0) != 1.0:
        return set()
    found = artifact.read_json("results.json")
    after = found["after_first_update"]
    has = {"strategies": {*STRATEGIES} <= {*found["strategies"]}, "buffers": after["anchors"], "sweep": after["sweep"]}
    return {kind for kind, results in has.items() if results}


def _evaluate_tasks(entry: SuiteEntry, config: RunConfig, run: RunDir, progress: Progress) -> None:
    from compass_ray.harness import planned_tasks
    from compass_ray.stages import harness

    changed = with_overrides(config, entry.settings)
    methods = [method for method in entry.methods if method in (planned_tasks.BASE, *config.select.methods)]
    planned = planned_tasks.plan(changed, run, tasks=entry.tasks, methods=methods, data={})
    harness.run_tasks(changed, run, planned_tasks.expand_tags(planned), progress=progress)
