"""Check that the method "oracle" finds subjects: in a source of the pool, and in the guide set of every target language.

Key property: only sources on this machine are looked at. Of Parquet files only the header is read, of small text files all rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.config import ConfigError, SourceConfig
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.hub import dataset_id
from compass_ray.preflight.row_counts import has_subjects
from compass_ray.sources.column_mapping import load_parts

_REMEDY = "add a column subject, or map one with columns: {subject: NAME}, or remove oracle from select.methods"


def check_subjects(context: CheckContext) -> list[CheckResult]:
    """Check the subjects that the method "oracle" needs; empty if it is not used or the sources cannot be read."""
    if "oracle" not in context.config.select.methods or context.source_problems:
        return []
    return [CheckResult("subjects", found, _REMEDY, blocking=True, by="settings") for found in _missing(context)]


def _missing(context: CheckContext) -> Iterator[str]:
    pool, codes = context.config.pool, context.config.languages
    if all(has_subjects(source, context.thorough) is False for source in pool.sources):
        names = ", ".join(source.path for source in pool.sources)
        yield f"oracle needs subjects, and no source of pool.sources has a column of them ({names})"
    without = [code for code in codes if _guide_has_subjects(pool.guides, code) is False]
    if without:
        yield f"oracle needs subjects, and no guide prompt of {', '.join(without)} has one (pool.guides, {pool.guides.path})"


def _guide_has_subjects(guides: SourceConfig, language: str) -> bool | None:
    """Whether a guide prompt of a language has a subject; None if the guide set is on the hub or cannot be read."""
    if any(dataset_id(part) for part in (guides, *guides.extra_sources)):
        return None
    try:
        parts = [part.table for part in load_parts(guides, ("prompt",), language)]
    except (ConfigError, ValueError):
        return None  # check_guides reports it
    return any("subject" in table.column_names and any(table["subject"].to_pylist()) for table in parts)
