"""Guide sets and test sets of a target language (COMPASS, sections 3.1 and 4.1).

Key property: a guide set holds prompts only, and shares no prompt with the test set. The leak check is by content, and by
what a benchmark calls its items, so that an item that is worded otherwise in another of its sets is found as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, PoolConfig
from compass_ray.sources.benchmarks.item_identity import find_cross_benchmark_duplicates, item_identities, prompt_key
from compass_ray.sources.benchmarks.layouts import OPTIONS
from compass_ray.sources.benchmarks.multiple_choice import build_items, require_texts
from compass_ray.sources.column_mapping import MappedTable, load_parts

__all__ = ["GuideAndTest", "prompt_key", "read_guide_and_test"]


@dataclass(frozen=True)
class GuideAndTest:
    """Guide prompts (tables.GUIDES) and test items (tables.ITEMS) of one language."""

    guide: pa.Table
    test: pa.Table
    removed: int = 0
    """Test items that were taken out because they guided."""


def read_guide_and_test(config: PoolConfig, language: str, items: int | None = None) -> GuideAndTest:
    """Read both sets of a language.

    Args:
        config: the sources.
        language: code of the target language.
        items: bound on test items, the first by item_id hash; all when None.

    Raises:
        ConfigError: a source cannot be read, a set is empty, or the two overlap where that is to be refused.
    """
    guides = load_parts(config.guides, ("prompt",), language)
    tests = load_parts(config.tests, ("prompt", *OPTIONS[:2], "answer"), language)
    guide, test = _guide_table(guides, language), _test_table(config, tests, language)
    guided = _in_guide_set(config, guides, tests, language)
    if config.tests.on_guide_overlap == "refuse" and any(guided):
        _raise_leak(guide, test.filter(pa.array(guided)), language)
    kept = test.filter(pa.array([not each for each in guided], pa.bool_())).sort_by("item_id")
    if kept.num_rows == 0:
        raise ConfigError(f"every test item of {language!r} stands in its guide set; give other items in pool.tests")
    return GuideAndTest(guide, kept if items is None else kept.slice(0, items), sum(guided))


def _guide_table(parts: list[MappedTable], language: str) -> pa.Table:
    table = pa.concat_tables([_with_subject(part.table).select(["prompt", "subject"]) for part in parts])
    require_texts(table, ("prompt",), "guide", language)
    ids = [content_hash(language, "guide", prompt) for prompt in table["prompt"].to_pylist()]
    rows = {
        "row_id": pa.array(ids),
        "prompt": table["prompt"],
        "language": pa.array([language] * table.num_rows, pa.string()),
        "subject": table["subject"],
    }
    distinct = pa.table(rows).group_by("row_id", use_threads=False).aggregate([(n, "first") for n in rows if n != "row_id"])
    renamed = distinct.rename_columns([name.removesuffix("_first") for name in distinct.column_names])
    return renamed.select(schemas.GUIDES.names).sort_by("row_id").cast(schemas.GUIDES)


def _test_table(config: PoolConfig, parts: list[MappedTable], language: str) -> pa.Table:
    sources = (config.tests, *config.tests.extra_sources)
    return pa.concat_tables([build_items(part, language, s.path) for part, s in zip(parts, sources, strict=True)])


def _in_guide_set(config: PoolConfig, guides: list[MappedTable], tests: list[MappedTable], language: str) -> list[bool]:
    """Whether each test item stands in the guide set, by its text or by being the same item of the same benchmark."""
    asked = {prompt_key(prompt or "") for part in guides for prompt in part.table["prompt"].to_pylist()}
    known = {each for part in guides for each in item_identities(part)} - {None} | find_cross_benchmark_duplicates(
        config, guides, tests, language
    )
    found = []
    for part in tests:
        prompts = part.table["prompt"].to_pylist()
        pairs = zip(prompts, item_identities(part), strict=True)
        found += [prompt_key(prompt or "") in asked or identity in known for prompt, identity in pairs]
    return found


def _with_subject(table: pa.Table) -> pa.Table:
    if "subject" in table.column_names:
        return table
    return table.append_column("subject", pa.nulls(table.num_rows, pa.string()))


def _raise_leak(guide: pa.Table, leaked: pa.Table, language: str) -> None:
    remedy = "take them out of one of the two (pool.guides, pool.tests), or set pool.tests.on_guide_overlap=remove"
    keys = {prompt_key(question) for question in leaked["question"].to_pylist()}
    if same := [prompt for prompt in guide["prompt"].to_pylist() if prompt_key(prompt) in keys]:
        raise ConfigError(
            f"{len(same)} guide prompts of {language!r} are test questions too, for example {same[0][:80]!r}; {remedy}"
        )
    raise ConfigError(
        f"{leaked.num_rows} test items of {language!r} are items of the guide set in other words, for example "
        f"{leaked['question'][0].as_py()[:80]!r}; {remedy}"
    )
