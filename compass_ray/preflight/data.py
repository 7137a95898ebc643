"""Checks that every target language has rows, guide prompts and test items.

Key property: rows are counted by language only, and only where that is cheap. If a source cannot be counted cheaply, for
example on the hub, a language without counted rows is reported but does not block the run.
"""

from __future__ import annotations

from collections.abc import Iterable

from compass_ray import languages
from compass_ray.config import ConfigError, PoolConfig
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.hub import dataset_id
from compass_ray.preflight.row_counts import RowCounts, count_rows
from compass_ray.sources.guides import read_guide_and_test


def check_rows(context: CheckContext) -> list[CheckResult]:
    """Check that the pool has rows of every target language."""
    config = context.config
    counts_by_source = [
        count_rows(part, context.thorough) for source in config.pool.sources for part in (source, *source.extra_sources)
    ]
    missing = [code for code in config.languages if _is_excluded(config.pool, code)]
    if missing:
        found = f"pool.languages does not include {', '.join(missing)}, but languages does"
        return [
            CheckResult(
                "languages", found, "add them to pool.languages, or remove them from languages", blocking=True, by="settings"
            )
        ]
    totals = {code: _total_rows(code, counts_by_source) for code in config.languages}
    empty = [code for code, count in totals.items() if count == 0]
    if empty and None not in counts_by_source:
        found = f"no rows in the pool's sources: {', '.join(_display_name(code) for code in empty)}"
        remedy = "add rows to pool.sources, or remove these languages"
        return [CheckResult("languages", found, remedy, blocking=True, by="settings")]
    return [CheckResult("languages", _summary(totals, empty))]


def _is_excluded(pool: PoolConfig, code: str) -> bool:
    return pool.languages is not None and code not in pool.languages


def _summary(totals: RowCounts, unknown: list[str]) -> str:
    """Rows of each language. ``unknown`` can only have rows in sources that were not counted."""
    counted = [
        f"{_display_name(code)} {count:,}" if count else _display_name(code)
        for code, count in totals.items()
        if code not in unknown
    ]
    not_counted = f"not counted (sources on the hub, or not tables on this machine): {', '.join(unknown)}"
    return "; ".join([*([f"rows: {', '.join(counted)}"] if counted else []), *([not_counted] if unknown else [])])


def _display_name(code: str) -> str:
    return f"{languages.get_language(code).name} ({code})"


def _total_rows(code: str, counts_by_source: Iterable[RowCounts | None]) -> int | None:
    """Rows of a language in all sources. None if a source has rows that were not counted."""
    counts = [source[code] for source in counts_by_source if source and code in source]
    return None if None in counts else sum(count for count in counts if count)


def check_guides(context: CheckContext) -> list[CheckResult]:
    """Count guide prompts and test items of every language. Only the pool stage reads those on the hub."""
    pool = context.config.pool
    parts = [part for source in (pool.guides, pool.tests) for part in (source, *source.extra_sources)]
    if on_hub := sorted({name for part in parts if (name := dataset_id(part))}):
        return [CheckResult("guide sets", f"{', '.join(on_hub)}: will be read by the pool stage")]
    counts = []
    for code in context.config.languages:
        try:
            sets = read_guide_and_test(pool, code)
        except (ConfigError, ValueError) as error:
            return [
                CheckResult("guide sets", f"{code}: {error}", "correct pool.guides or pool.tests", blocking=True, by="settings")
            ]
        counts.append(f"{code} {sets.guide.num_rows}/{sets.test.num_rows}")
    return [CheckResult("guide sets", "prompts/test items: " + ", ".join(counts))]
