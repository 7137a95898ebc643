"""Stage: pool and guide sets from the sources into the run (COMPASS, sections 3.1 and 4.1). Not embedded yet."""

from __future__ import annotations

from compass_ray import languages
from compass_ray.artifacts import Identity, Manifest, RunDir
from compass_ray.config import RunConfig, SourceConfig
from compass_ray.progress import Progress, silent
from compass_ray.sources.guides import read_guide_and_test
from compass_ray.sources.loading import source_content
from compass_ray.sources.pool import SHARD_ROWS, read_pool


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``pool`` and ``guides/<language>`` for every target language.

    Raises:
        ConfigError: an unknown language, or sources that cannot be used.
    """
    total = len(config.languages) + 1
    for code in config.languages:
        languages.language(code)
    manifests = [_pool(config, run, force)]
    progress("pool", 1, total)
    for done, code in enumerate(config.languages, start=2):
        manifests.append(_guide(config, run, code, force))
        progress("pool", done, total)
    return manifests


def _pool(config: RunConfig, run: RunDir, force: bool) -> Manifest:
    described = [_describe(source) for source in config.pool.sources]
    identity = Identity("pool", {"sources": described, "languages": config.pool.languages}, {})
    if done := run.pool.done(identity, force=force):
        return done
    pool = read_pool(config.pool)
    writer = run.pool.begin(identity)
    writer.table("rows.parquet", pool.rows, row_group=SHARD_ROWS)
    writer.table("rejected.parquet", pool.rejected)
    return writer.publish({"rows": pool.rows.num_rows, "rejected": pool.rejected.num_rows})


def _guide(config: RunConfig, run: RunDir, language: str, force: bool) -> Manifest:
    settings = {
        "guides": _describe(config.pool.guides, language),
        "tests": _describe(config.pool.tests, language),
        "items": config.evaluate.items_per_language,
    }
    identity = Identity("pool", settings, {})
    artifact = run.guide(language)
    if done := artifact.done(identity, force=force):
        return done
    sets = read_guide_and_test(config.pool, language, config.evaluate.items_per_language)
    writer = artifact.begin(identity)
    writer.table("guide.parquet", sets.guide)
    writer.table("test.parquet", sets.test)
    return writer.publish({"guide": sets.guide.num_rows, "test": sets.test.num_rows})


def _describe(source: SourceConfig, language: str | None = None) -> dict[str, object]:
    """What identifies a source: its settings as written; ``${NAME}`` is not filled in. Content counts, where it lies does not."""
    return source.model_dump() | {"content": source_content(source, language)}
