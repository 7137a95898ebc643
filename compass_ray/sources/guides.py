"""Guide sets and test sets of a target language (COMPASS, sections 3.1 and 4.1).

Key property: a guide set holds only prompts, and shares no prompt with the test set. The leak check compares contents and
benchmark item ids, so it also finds an item that has another wording in another set of the benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, PoolConfig
from compass_ray.sources.benchmarks.item_identity import find_cross_benchmark_duplicates, item_identities, prompt_key
from compass_ray.sources.benchmarks.layouts import OPTIONS
from compass_ray.sources.benchmarks.multiple_choice import build_items, read_options, require_texts
from compass_ray.sources.column_mapping import MappedTable, load_parts

__all__ = ["GuideAndTest", "prompt_key", "read_guide_and_test"]


@dataclass(frozen=True)
class GuideAndTest:
    """Guide prompts (schemas.GUIDES) and test items (schemas.ITEMS) of one language."""

    guide: pa.Table
    test: pa.Table
    removed: int = 0
    """Number of test items removed because they are in the guide set."""


def read_guide_and_test(config: PoolConfig, language: str, items: int | None = None) -> GuideAndTest:
    """Read both sets of a language.

    Args:
        config: the sources.
        language: code of the target language.
        items: maximum number of test items, the first by item_id; None for all.

    Raises:
        ConfigError: a source cannot be read, a set is empty, or the sets overlap and ``on_guide_overlap`` is ``refuse``.
    """
    guides = load_parts(config.guides, ("prompt",), language, OPTIONS)
    tests = load_parts(config.tests, ("prompt", *OPTIONS[:2], "answer"), language)
    guide, test = _guide_table(guides, language), _test_table(config, tests, language)
    in_guide = _in_guide_set(config, guides, tests, language)
    if config.tests.on_guide_overlap == "refuse" and any(in_guide):
        _raise_leak(guide, test.filter(pa.array(in_guide)), language)
    kept = test.filter(pa.array([not each for each in in_guide], pa.bool_())).sort_by("item_id")
    if kept.num_rows == 0:
        raise ConfigError(f"every test item of {language!r} is in its guide set; set other items in pool.tests")
    return GuideAndTest(guide, kept if items is None else kept.slice(0, items), sum(in_guide))


def _guide_table(parts: list[MappedTable], language: str) -> pa.Table:
    """Distinct prompts of all parts. A prompt that comes twice has the options of its first row."""
    table = pa.concat_tables([_with_subject(part.table).select(["prompt", "subject"]) for part in parts])
    require_texts(parts, ("prompt",), "guide", language)
    ids = [content_hash(language, "guide", prompt) for prompt in table["prompt"].to_pylist()]
    options = [each for part in parts for each in read_options(part)]
    rows = {
        "row_id": pa.array(ids),
        "prompt": table["prompt"],
        "language": pa.array([language] * table.num_rows, pa.string()),
        "subject": table["subject"],
        "index": pa.array(range(table.num_rows), pa.int64()),
    }
    distinct = pa.table(rows).group_by("row_id", use_threads=False).aggregate([(n, "first") for n in rows if n != "row_id"])
    renamed = distinct.rename_columns([name.removesuffix("_first") for name in distinct.column_names])
    of_first = pa.array([options[i] for i in renamed["index"].to_pylist()], pa.list_(pa.string()))
    return renamed.append_column("options", of_first).select(schemas.GUIDES.names).sort_by("row_id").cast(schemas.GUIDES)


def _test_table(config: PoolConfig, parts: list[MappedTable], language: str) -> pa.Table:
    sources = (config.tests, *config.tests.extra_sources)
    return pa.concat_tables([build_items(part, language, s.path) for part, s in zip(parts, sources, strict=True)])


def _in_guide_set(config: PoolConfig, guides: list[MappedTable], tests: list[MappedTable], language: str) -> list[bool]:
    """Whether each test item is in the guide set, by its text or by its benchmark item id."""
    guide_keys = {prompt_key(prompt or "") for part in guides for prompt in part.table["prompt"].to_pylist()}
    known = {each for part in guides for each in item_identities(part)} - {None} | find_cross_benchmark_duplicates(
        config, guides, tests, language
    )
    found = []
    for part in tests:
        prompts = part.table["prompt"].to_pylist()
        pairs = zip(prompts, item_identities(part), strict=True)
        found += [prompt_key(prompt or "") in guide_keys or identity in known for prompt, identity in pairs]
    return found


def _with_subject(table: pa.Table) -> pa.Table:
    if "subject" in table.column_names:
        return table
    return table.append_column("subject", pa.nulls(table.num_rows, pa.string()))


def _raise_leak(guide: pa.Table, leaked: pa.Table, language: str) -> None:
    remedy = "remove them from pool.guides or pool.tests, or set pool.tests.on_guide_overlap=remove"
    keys = {prompt_key(question) for question in leaked["question"].to_pylist()}
    if same := [prompt for prompt in guide["prompt"].to_pylist() if prompt_key(prompt) in keys]:
        raise ConfigError(
            f"{len(same)} guide prompts of {language!r} are also test questions, for example {same[0][:80]!r}; {remedy}"
        )
    raise ConfigError(
        f"{leaked.num_rows} test items of {language!r} are guide set items in another wording, for example "
        f"{leaked['question'][0].as_py()[:80]!r}; {remedy}"
    )
