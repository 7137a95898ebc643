"""Checks that sources can be read, and that every target language has rows, guide prompts and test items.

Key property: what cannot be read here cannot be read by the pool stage, so it blocks the run, by the name of its setting. What is
on the hub, or too large to be counted, is reported but does not block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from compass_ray import languages
from compass_ray.config import ConfigError, PoolConfig, RunConfig
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.hub import dataset_id
from compass_ray.preflight.local_files import local_sources
from compass_ray.preflight.row_counts import RowCounts, SourceCount
from compass_ray.sources.column_mapping import load_parts
from compass_ray.sources.guides import read_guide_and_test


def check_sources(context: CheckContext) -> list[CheckResult]:
    """Check that the files of every source exist, can be read and have the columns that are needed."""
    if problems := [_source_result(setting, problem) for setting, problem in context.source_problems.items()]:
        return problems
    names = ", ".join(dict.fromkeys(source.resolved_path() for _, source, _ in local_sources(context.config)))
    return [CheckResult("sources", f"on this machine: {names}")] if names else []


def _source_result(setting: str, problem: str) -> CheckResult:
    return CheckResult("sources", f"{setting}: {problem}", f"correct {setting}", blocking=True, by="settings")


def check_rows(context: CheckContext) -> list[CheckResult]:
    """Check that the pool takes rows from every local source, and has rows of every target language."""
    config = context.config
    missing = [code for code in config.languages if _is_excluded(config.pool, code)]
    if missing:
        found = f"pool.languages does not include {', '.join(missing)}, but languages does"
        remedy = "add them to pool.languages, or remove them from languages"
        return [CheckResult("languages", found, remedy, blocking=True, by="settings")]
    counted = context.source_counts
    problems = [_source_result(f"pool.sources.{number}", each.problem) for number, each in enumerate(counted) if each.problem]
    return problems or [_language_result(config, counted)]


def _language_result(config: RunConfig, counted: Sequence[SourceCount]) -> CheckResult:
    counts = [each.counts for each in counted]
    totals = {code: _total_rows(code, counts) for code in config.languages}
    empty = [code for code, count in totals.items() if count == 0]
    if empty and None not in counts:
        found = f"no rows in the pool's sources: {', '.join(_display_name(code) for code in empty)}"
        found += _unknown_languages(counts, "they have")
        return CheckResult(
            "languages", found, "add rows to pool.sources, or remove these languages", blocking=True, by="settings"
        )
    unknown = _unknown_languages(counts, "not taken, because the language is not known:")
    return CheckResult("languages", _summary(totals, empty, any(each.is_upper_bound for each in counted)) + unknown)


def _unknown_languages(counts: Iterable[RowCounts | None], label: str) -> str:
    """A note on rows whose language has no code of a pool, as they are written; empty if there are none."""
    found: Counter[str] = Counter()
    for name, count in (pair for each in counts if each for pair in each.items()):
        if languages.pool_code(name) is None:
            found[name] += count or 0
    return f"; {label} {languages.describe_spellings(dict(found.most_common()))}" if found else ""


def _is_excluded(pool: PoolConfig, code: str) -> bool:
    return pool.languages is not None and code not in pool.languages


def _summary(totals: RowCounts, unknown: list[str], is_upper_bound: bool) -> str:
    """Rows of each language. ``unknown`` can only have rows in sources that were not counted."""
    counted = [
        f"{_display_name(code)} {count:,}" if count else _display_name(code)
        for code, count in totals.items()
        if code not in unknown
    ]
    label = "rows (with blank and repeated ones)" if is_upper_bound else "rows"
    not_counted = f"not counted (sources on the hub, or not tables on this machine): {', '.join(unknown)}"
    return "; ".join([*([f"{label}: {', '.join(counted)}"] if counted else []), *([not_counted] if unknown else [])])


def _display_name(code: str) -> str:
    return f"{languages.get_language(code).name} ({code})"


def _total_rows(code: str, counts_by_source: Iterable[RowCounts | None]) -> int | None:
    """Rows of a language in all sources. None if a source has rows that were not counted."""
    counts = [source[code] for source in counts_by_source if source and code in source]
    return None if None in counts else sum(count for count in counts if count)


def check_guides(context: CheckContext) -> list[CheckResult]:
    """Count the guide prompts and test items that the run takes. Only the pool stage reads those on the hub."""
    config, pool = context.config, context.config.pool
    if any(not setting.startswith("pool.sources") for setting in context.source_problems):
        return []  # check_sources reports it
    parts = [part for source in (pool.guides, pool.tests) for part in (source, *source.extra_sources)]
    if on_hub := sorted({name for part in parts if (name := dataset_id(part))}):
        return [CheckResult("guide sets", f"{', '.join(on_hub)}: will be read by the pool stage")]
    counts = []
    for code in config.languages:
        try:
            sets = read_guide_and_test(pool, code, config.evaluate.items_per_language)
        except (ConfigError, ValueError) as error:
            setting = _faulty_set(pool, code)
            return [CheckResult("guide sets", f"{setting}, {code}: {error}", f"correct {setting}", blocking=True, by="settings")]
        removed = f" ({sets.removed} in the guide set removed)" if sets.removed else ""
        counts.append(f"{code} {sets.guide.num_rows}/{sets.test.num_rows}{removed}")
    return [CheckResult("guide sets", "prompts/test items: " + ", ".join(counts))]


def _faulty_set(pool: PoolConfig, code: str) -> str:
    """The setting that is wrong if both sets of a language cannot be used together."""
    try:
        guides = load_parts(pool.guides, ("prompt",), code)
    except (ConfigError, ValueError):
        return "pool.guides"
    has_rows = any(part.table.num_rows for part in guides)
    return "pool.tests" if has_rows else "pool.guides"
