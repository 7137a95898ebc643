"""Stage: read the pool and the guide sets from their sources into the run (COMPASS, sections 3.1 and 4.1).

Key property: the driver only hashes files and reads manifests. Ray tasks read rows, one task for the pool and one for each
language. If sources are local files, the tasks run on the driver's node with its variables.
"""

from __future__ import annotations

import logging
import os
import string
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compass_ray import languages, ray_session
from compass_ray.artifacts import SHARED, Artifact, ArtifactError, Identity, Manifest, RunDir
from compass_ray.config import ConfigError, RunConfig, SourceConfig
from compass_ray.progress import Progress, silent
from compass_ray.sources.column_mapping import source_content
from compass_ray.sources.guides import read_guide_and_test
from compass_ray.sources.pool import SHARD_ROWS, describe_unknown_languages, read_pool

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceEnvironment:
    """Environment variables of the driver that source paths name."""

    variables: Mapping[str, str]


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``pool`` and ``guides/<language>`` for every target language.

    Raises:
        ConfigError: an unknown language, or unusable sources; artifacts of the other sources are complete.
    """
    for code in config.languages:
        languages.get_language(code)
    wanted = {SHARED: _pool_identity(config)} | {code: _guide_identity(config, code) for code in config.languages}
    pending = {w: identity for w, identity in wanted.items() if not _artifact(run, w).find_complete(identity, force=force)}
    if pending:
        _read(config, run, pending, progress, len(wanted))
    else:
        progress("pool", len(wanted), len(wanted))
    return [_artifact(run, whose).require() for whose in wanted]


def _artifact(run: RunDir, whose: str) -> Artifact:
    return run.pool if whose == SHARED else run.guide(whose)


def _pool_identity(config: RunConfig) -> Identity:
    described = [_describe(source) for source in config.pool.sources]
    return Identity("pool", {"sources": described, "languages": config.pool.languages}, {})


def _guide_identity(config: RunConfig, language: str) -> Identity:
    settings = {
        "guides": _describe(config.pool.guides, language),
        "tests": _describe(config.pool.tests, language),
        "items": config.evaluate.items_per_language,
    }
    return Identity("pool", settings, {})


def _describe(source: SourceConfig, language: str | None = None) -> dict[str, object]:
    """Identity of a source: its settings with ``${NAME}`` unexpanded, and a hash of its content, not its location."""
    return source.fingerprint_settings() | {"content": source_content(source, language)}


def _read(config: RunConfig, run: RunDir, pending: Mapping[str, Identity], progress: Progress, total: int) -> None:
    """Run one task for the pool and one for each guide set; raise the first error after all have ended."""
    ray_session.start(config.resources)
    import ray

    task, settings, around = ray.remote(read_sources), config.model_dump(mode="json"), _source_environment(config)
    queue, failures = list(pending), dict[str, Any]()
    waiting: dict[Any, str] = {}
    while queue or waiting:
        while queue and len(waiting) < (os.cpu_count() or 1):
            whose = queue.pop(0)
            options = _task_options(config, pending[whose])
            waiting[task.options(**options).remote(run.uri, settings, whose, pending[whose], around)] = whose
        [finished], _ = ray.wait(list(waiting))
        whose = waiting.pop(finished)
        try:
            if note := ray.get(finished):
                logger.warning("pool: %s", note)
            progress("pool", total - len(queue) - len(waiting) - len(failures), total)
        except ray.exceptions.RayTaskError as error:
            failures[whose] = error
    for first in (failures[w] for w in pending if w in failures):
        _raise_user_error(first)


def _raise_user_error(error: Any) -> None:
    """Raise the worker's own error without Ray's wrapper, if it is a user error."""
    if isinstance(error.cause, (ConfigError, ArtifactError)):
        raise error.cause from None
    raise error


def _task_options(config: RunConfig, identity: Identity) -> dict[str, Any]:
    """Ray options: any node, or this node if a source is a local file, even if the node offers no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    retries = {"max_retries": config.resources.max_failures}
    described = identity.config.get("sources") or [identity.config["guides"], identity.config["tests"]]
    if not any(source["content"] for source in described):
        return retries | {"num_cpus": config.resources.cpus_per_worker}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return retries | {"num_cpus": 0, "scheduling_strategy": here}


def _source_environment(config: RunConfig) -> SourceEnvironment:
    sources = (*config.pool.sources, config.pool.guides, config.pool.tests)
    paths = [each.path for source in sources for each in (source, *source.extra_sources)]
    names = {name for path in paths for name in string.Template(path).get_identifiers()}
    return SourceEnvironment({name: os.environ[name] for name in sorted(names) if name in os.environ})


def read_sources(uri: str, settings: Mapping[str, Any], whose: str, identity: Identity, around: SourceEnvironment) -> str:
    """Ray task: read, check and publish the pool, or one language's guide and test set.

    Returns:
        A note for the user; empty if there is none. Log lines of a task do not reach the terminal.
    """
    config, artifact = RunConfig.model_validate(settings), _artifact(RunDir(uri), whose)
    os.environ.update(around.variables)
    if whose == SHARED:
        return _write_pool(config, artifact, identity)
    _write_guide(config, artifact, whose, identity)
    return ""


def _write_pool(config: RunConfig, artifact: Artifact, identity: Identity) -> str:
    """Publish the pool; return a note on rows that no language takes."""
    started = time.monotonic()
    pool = read_pool(config.pool)
    writer = artifact.begin(identity)
    writer.write_table("rows.parquet", pool.rows, row_group=SHARD_ROWS)
    writer.write_table("rejected.parquet", pool.rejected)
    writer.publish({"rows": pool.rows.num_rows, "rejected": pool.rejected.num_rows, **_seconds(started)})
    unknown = describe_unknown_languages(pool.rejected)
    return f"not taken, because the language is not known: {unknown}" if unknown else ""


def _write_guide(config: RunConfig, artifact: Artifact, language: str, identity: Identity) -> None:
    started = time.monotonic()
    sets = read_guide_and_test(config.pool, language, config.evaluate.items_per_language)
    writer = artifact.begin(identity)
    writer.write_table("guide.parquet", sets.guide)
    writer.write_table("test.parquet", sets.test)
    counts = {"guide": sets.guide.num_rows, "test": sets.test.num_rows, "removed": sets.removed}
    writer.publish(counts | _seconds(started))


def _seconds(started: float) -> dict[str, float]:
    return {"seconds": round(time.monotonic() - started, 2)}
