"""Stage: select training rows for every target language, in one Ray task per language (COMPASS, section 3.2).

Key property: a task memory-maps the cluster labels and scores of the pool and reads only the vectors that the sampler uses.
Equal seeds and inputs give equal rows on any number of workers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from compass_ray import ray_session
from compass_ray.artifacts import (
    ALL_LANGUAGES,
    SHARED,
    Identity,
    LanguagesFailedError,
    Manifest,
    RunDir,
    clustering_key,
    selection_owners,
)
from compass_ray.config import RunConfig
from compass_ray.progress import Progress, silent
from compass_ray.row_selection import (
    BaselineFeatures,
    MethodSelection,
    PoolView,
    SelectionProblem,
    method_settings,
    open_pool,
    open_problems,
    select_by_method,
    select_for_all_languages,
)
from compass_ray.row_selection.budget import budget_artifacts, resolve_budget

OnReady = Callable[[str], None]
"""Called with a language, or with `SHARED`, when all its selections are complete."""


def run(
    config: RunConfig,
    run: RunDir,
    *,
    force: bool = False,
    progress: Progress = silent,
    ready: OnReady = lambda owner: None,
) -> list[Manifest]:
    """Write ``selections/<method>/<language>`` for every method and target language; ``all`` has one for all languages.

    Raises:
        LanguagesFailedError: some languages failed; the others are complete, and `ready` was called for them.
    """
    wanted = selection_owners(config)
    pending = [(m, c) for m, c in wanted if not run.selection(m, c).find_complete(_identity(config, run, m, c), force=force)]
    missing = Counter(owner for _, owner in pending)
    for owner in dict.fromkeys(owner for _, owner in wanted):
        if owner not in missing:
            ready(owner)
    if failures := _select(config, run, pending, progress, ready):
        raise LanguagesFailedError({owner: f"selection: {reason}" for owner, reason in failures.items()})
    return [run.selection(m, c).require() for m, c in wanted]


def _select(config: RunConfig, run: RunDir, pending: list[tuple[str, str]], progress: Progress, ready: OnReady) -> dict[str, str]:
    """Run one task per language; return the error messages by language."""
    if not pending:
        return {}
    ray_session.start(config.resources)
    import ray

    task = ray.remote(select_language).options(
        num_cpus=config.resources.cpus_per_worker, max_retries=config.resources.max_failures
    )
    settings, failures = config.model_dump(mode="json"), {}
    owners = dict.fromkeys(owner for _, owner in pending)
    tasks = {task.remote(run.uri, settings, c, [m for m, d in pending if d == c]): c for c in owners}
    waiting = list(tasks)
    while waiting:
        [finished], waiting = ray.wait(waiting)
        if reason := ray_session.failure(finished):
            failures[tasks[finished]] = reason
        else:
            ready(tasks[finished])
        progress("select", len(tasks) - len(waiting), len(tasks))
    return failures


def _identity(config: RunConfig, run: RunDir, method: str, language: str) -> Identity:
    settings = method_settings(config.select, method) | {"seed": config.seed}
    bias = config.pool.bias
    settings["bias"] = bias.restrict_to(_targets(config, language)).fingerprint_settings() if bias else None
    found = budget_artifacts(config, run, language) if method != "target" else ()
    guides = [a for code in _targets(config, language) for a in (run.guide(code), run.guide_embeddings(code))]
    inputs = (run.pool, *guides, run.clustering(clustering_key(config, language)), *found)
    return Identity("select", settings, {a.name: a.require().fingerprint for a in inputs})


def select_language(uri: str, settings: Mapping[str, Any], language: str, methods: list[str]) -> None:
    """Ray task: selections of one language, or of all languages together, by some methods."""
    config, run = RunConfig.model_validate(settings), RunDir(uri)
    pool = open_pool(config, run, language)
    problems = open_problems(config, run, pool, _targets(config, language))
    for method in methods:
        started = time.monotonic()
        selected = _select_by_method(config, run, method, problems, pool)
        writer = run.selection(method, language).begin(_identity(config, run, method, language))
        writer.write_table("rows.parquet", selected.rows)
        selected.allocation.write(writer)
        seconds = round(time.monotonic() - started, 2)
        writer.publish(
            {"selected": selected.selected, "unfilled": selected.allocation.unfilled, "seconds": seconds}, seed=config.seed
        )


def _targets(config: RunConfig, language: str) -> tuple[str, ...]:
    """Target languages of a selection."""
    return config.languages if language == SHARED else (language,)


def _select_by_method(
    config: RunConfig, run: RunDir, method: str, problems: list[SelectionProblem], pool: PoolView
) -> MethodSelection:
    if method == ALL_LANGUAGES:
        return select_for_all_languages(config.select, problems, pool, seed=config.seed)
    [problem] = problems
    select, features = resolve_budget(config, run, problem.language), BaselineFeatures.of(run, problem.language)
    return select_by_method(select, method, problem, pool, seed=config.seed, features=features)
