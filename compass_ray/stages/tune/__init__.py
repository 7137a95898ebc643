"""Stage: find the budget of each language, by trial trainings on Ray Tune or from counts (COMPASS, section 5.2).

Key property: if ``select.budget`` is a number, the stage writes nothing. Otherwise ``budgets/<language>`` holds the budget
and how it was found, and selection reads it there. A language whose search fails is reported; the others are completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compass_ray import ray_session
from compass_ray.artifacts import LanguagesFailedError, Manifest, RunDir
from compass_ray.budget_search import identity, prepare, publish_best, publish_forecast
from compass_ray.config import RunConfig
from compass_ray.models.memory_watch import forget_kill
from compass_ray.progress import Progress, silent


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``budgets/<language>`` for every target language, or nothing if the budget is a number.

    Raises:
        LanguagesFailedError: some languages failed; the artifacts of the others are complete.
    """
    if not isinstance(config.select.budget, str):
        return []
    pending = [c for c in config.languages if not run.budget(c).find_complete(identity(config, run, c), force=force)]
    if pending:
        ray_session.start(config.resources)
        for code in pending:
            run.budget(code).begin(identity(config, run, code), keep_partial=not force)
            forget_kill(run.budget(code))
        _search(config, run, pending, progress)
    return [run.budget(code).require() for code in config.languages]


def _search(config: RunConfig, run: RunDir, pending: Sequence[str], progress: Progress) -> None:
    tuned = config.select.budget == "tuned"
    languages = [code for code in pending if not (tuned and publish_best(config, run, code))]
    failures = _prepare_languages(config, run, languages)
    if tuned and (ready := [code for code in languages if code not in failures]):
        from compass_ray.stages.tune.sweep import sweep

        failures |= sweep(config, run, ready, progress=progress)
    if failures:
        raise LanguagesFailedError({code: f"budget: {reason}" for code, reason in failures.items()})


def _prepare_languages(config: RunConfig, run: RunDir, languages: Sequence[str]) -> dict[str, str]:
    """Run one Ray task per language; return the error messages by language."""
    import ray

    task = ray.remote(_prepare_language).options(
        num_cpus=config.resources.cpus_per_worker, max_retries=config.resources.max_failures
    )
    settings = config.model_dump(mode="json")
    tasks = {code: task.remote(run.uri, settings, code) for code in languages}
    return {code: reason for code, reference in tasks.items() if (reason := ray_session.failure(reference))}


def _prepare_language(uri: str, settings: dict[str, Any], language: str) -> None:
    """Ray task: prepare the data that the trials of a language share, or publish its forecast."""
    config, run = RunConfig.model_validate(settings), RunDir(uri)
    if config.select.budget == "tuned":
        prepare(config, run, language)
    else:
        publish_forecast(config, run, language)
