"""Stage: choose training rows for every target language, one Ray task a language (COMPASS, section 3.2).

Key property: a task reads cluster labels and scores of the pool, and the vectors of only those candidates that the
sampler touches; equal seed and inputs give equal rows on any number of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from compass_ray import ray_session
from compass_ray.artifacts import Identity, Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.language_selection import Guide, PoolView, choose, first_question
from compass_ray.progress import Progress, silent


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``selections/<method>/<language>`` for every method and target language."""
    wanted = [(m, c) for c in config.languages for m in config.select.methods]
    pending = [(m, c) for m, c in wanted if not run.selection(m, c).done(_identity(config, run, m, c), force=force)]
    by_language = Counter(c for _, c in pending)
    if pending:
        ray_session.start(config.resources)
        import ray

        task = ray.remote(_select).options(num_cpus=config.resources.cpus_per_worker, max_retries=config.resources.max_failures)
        settings = config.model_dump(mode="json")
        waiting = [task.remote(run.uri, settings, c, [m for m, d in pending if d == c]) for c in by_language]
        while waiting:
            finished, waiting = ray.wait(waiting)
            ray.get(finished)
            progress("select", len(by_language) - len(waiting), len(by_language))
    return [run.selection(m, c).require() for m, c in wanted]


def _identity(config: RunConfig, run: RunDir, method: str, language: str) -> Identity:
    settings = config.select.model_dump(exclude={"methods"}) | {"method": method, "seed": config.seed}
    settings["bias"] = config.pool.bias.model_dump() if config.pool.bias else None
    inputs = (run.pool, run.guide(language), run.guide_embeddings(language), run.clusters)
    return Identity("select", settings, {a.name: a.require().fingerprint for a in inputs})


def _select(uri: str, settings: Mapping[str, Any], language: str, methods: list[str]) -> None:
    """Ray task: one language's selections under some methods."""
    from compass_ray.models.clusterers import load_clusterer

    config, run = RunConfig.model_validate(settings), RunDir(uri)
    pool = PoolView.read(run)
    with run.clusters.local() as folder:
        guide = Guide.read(run, language, load_clusterer(folder))
    question = first_question(config, language, pool, guide)
    for method in methods:
        chosen = choose(config.select, method, question, pool, seed=config.seed)
        writer = run.selection(method, language).begin(_identity(config, run, method, language))
        writer.table("rows.parquet", chosen.rows)
        writer.json("allocation.json", chosen.allocation)
        writer.publish({"selected": chosen.selected, "unfilled": chosen.allocation["unfilled"]})
