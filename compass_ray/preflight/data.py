"""Whether every target language has rows, guide prompts and test items.

Key property: rows are counted by their language alone, where the files make that cheap; a source whose languages cannot be
known cheaply, as on the hub, leaves a language in doubt rather than refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from compass_ray import languages
from compass_ray.config import ConfigError, PoolConfig
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.hub import dataset_id
from compass_ray.preflight.row_counts import RowCounts, count_rows
from compass_ray.sources.guides import read_guide_and_test


def check_rows(asked: CheckContext) -> list[CheckResult]:
    """Rows of every target language in the pool."""
    config = asked.config
    known = [count_rows(part, asked.thorough) for source in config.pool.sources for part in (source, *source.extra_sources)]
    missing = [code for code in config.languages if _is_excluded(config.pool, code)]
    if missing:
        found = f"pool.languages leaves out {', '.join(missing)}, for which adapters are to be trained"
        return [CheckResult("languages", found, "add them there, or leave them out of languages", blocking=True, by="settings")]
    told = {code: _total_rows(code, known) for code in config.languages}
    without = [code for code, count in told.items() if count == 0]
    if without and None not in known:
        found = f"no rows in the pool's sources: {', '.join(_display_name(code) for code in without)}"
        return [CheckResult("languages", found, "add rows to pool.sources, or leave them out", blocking=True, by="settings")]
    return [CheckResult("languages", _summary(told, without))]


def _is_excluded(pool: PoolConfig, code: str) -> bool:
    return pool.languages is not None and code not in pool.languages


def _summary(told: RowCounts, in_doubt: list[str]) -> str:
    """Rows of each language; of those in doubt, that they could only be in sources that were not counted."""
    counted = [
        f"{_display_name(code)} {count:,}" if count else _display_name(code)
        for code, count in told.items()
        if code not in in_doubt
    ]
    doubt = f"not counted, since sources lie on the hub or are no tables here: {', '.join(in_doubt)}"
    return "; ".join([*([f"rows: {', '.join(counted)}"] if counted else []), *([doubt] if in_doubt else [])])


def _display_name(code: str) -> str:
    return f"{languages.get_language(code).name} ({code})"


def _total_rows(code: str, known: Iterable[RowCounts | None]) -> int | None:
    """Rows of a language in all sources, None where there are some, uncounted."""
    counts = [found[code] for found in known if found and code in found]
    return None if None in counts else sum(count for count in counts if count)


def check_guides(asked: CheckContext) -> list[CheckResult]:
    """Guide prompts and test items of every language; those on the hub are read by the pool stage only."""
    pool = asked.config.pool
    parts = [part for source in (pool.guides, pool.tests) for part in (source, *source.extra_sources)]
    if on_hub := sorted({name for part in parts if (name := dataset_id(part))}):
        return [CheckResult("guide sets", f"{', '.join(on_hub)}: read when the pool is made")]
    counts = []
    for code in asked.config.languages:
        try:
            sets = read_guide_and_test(pool, code)
        except (ConfigError, ValueError) as error:
            return [
                CheckResult("guide sets", f"{code}: {error}", "correct pool.guides or pool.tests", blocking=True, by="settings")
            ]
        counts.append(f"{code} {sets.guide.num_rows}/{sets.test.num_rows}")
    return [CheckResult("guide sets", "prompts/test items: " + ", ".join(counts))]
