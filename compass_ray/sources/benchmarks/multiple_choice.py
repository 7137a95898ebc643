"""Build multiple-choice items from loaded rows: two to ten options, one correct (COMPASS, section 4.1).

Key property: the answer letter is resolved before empty options are dropped, so a gap among the options changes the index
of the correct option but never the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError
from compass_ray.core.families import family_of
from compass_ray.languages import describe_spellings
from compass_ray.sources.benchmarks.layouts import LETTERS, OPTIONS, BenchmarkLayout
from compass_ray.sources.column_mapping import MappedTable
from compass_ray.texts import is_blank


def build_items(loaded: MappedTable, language: str, path: str) -> pa.Table:
    """Items (schemas.ITEMS) of one source, in its order.

    Raises:
        ConfigError: an item lacks its question or an option that its layout always has, or its answer names no option.
    """
    table = loaded.table
    require_texts([loaded], ("prompt", *loaded.layout.options), "test", language)
    names = [name for name in OPTIONS if name in table.column_names]
    listed = [_nonempty_options(dict(zip(names, row, strict=True)), loaded.layout) for row in _iter_rows(table, names)]
    answers = [_answer_index(answer, list(row), path) for answer, row in zip(table["answer"].to_pylist(), listed, strict=True)]
    options = [list(row.values()) for row in listed]
    rows = {
        "item_id": pa.array(_item_ids(table, options, language), pa.string()),
        "language": pa.array([language] * table.num_rows, pa.string()),
        "subject": table["subject"] if "subject" in table.column_names else pa.nulls(table.num_rows, pa.string()),
        "question": table["prompt"],
        "options": pa.array(options, pa.list_(pa.string())),
        "answer": pa.array(answers, pa.int8()),
        "sample_id": table["item_id"] if "item_id" in table.column_names else pa.nulls(table.num_rows, pa.string()),
        "family": pa.array(_families(table), pa.string()),
    }
    return pa.table(rows).cast(schemas.ITEMS)


def _families(table: pa.Table) -> list[str | None]:
    """The family of each item: its own column, or else the first part of the subject."""
    subjects, named = (
        table[name].to_pylist() if name in table.column_names else [None] * table.num_rows for name in ("subject", "family")
    )
    return [name or family_of(subject) for name, subject in zip(named, subjects, strict=True)]


def read_options(loaded: MappedTable) -> list[list[str] | None]:
    """Options of each row in their order, without empty ones; None for a row that has none."""
    names = [name for name in OPTIONS if name in loaded.table.column_names]
    if not names:
        return [None] * loaded.table.num_rows
    listed = ([text for text in row if text is not None and not _is_no_option(text)] for row in _iter_rows(loaded.table, names))
    return [options or None for options in listed]


def _iter_rows(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _nonempty_options(options: Mapping[str, str | None], layout: BenchmarkLayout) -> dict[str, str]:
    """Options of an item without empty ones; options that the layout requires are always kept."""
    kept = {name: text or "" for name, text in options.items()}
    return {name: text for name, text in kept.items() if name in layout.options or not _is_no_option(text)}


def _is_no_option(text: str) -> bool:
    return is_blank(text) or text.strip().lower() == "n/a"


def _answer_index(answer: str | None, names: Sequence[str], path: str) -> int:
    """Index of the correct option among the options of its item."""
    letters = [LETTERS[OPTIONS.index(name)] for name in names]
    letter = (answer or "").strip().upper()[:1]
    if letter not in letters:
        raise ConfigError(f"{path}: answer {answer!r} is not {', '.join(letters[:-1])} or {letters[-1]}")
    return letters.index(letter)


def _item_ids(table: pa.Table, options: Sequence[Sequence[str]], language: str) -> list[str]:
    prompts = table["prompt"].to_pylist()
    keys = table["item_id"].to_pylist() if "item_id" in table.column_names else prompts
    return [content_hash(language, k, p, *o) for k, p, o in zip(keys, prompts, options, strict=True)]


def require_texts(parts: Sequence[MappedTable], names: tuple[str, ...], which: str, language: str) -> None:
    """Check that a set has rows, and that these columns have text in every row.

    Raises:
        ConfigError: the set or a text is empty.
    """
    table = pa.concat_tables([part.table.select(names) for part in parts])
    if table.num_rows == 0:
        raise ConfigError(f"the {which} set of {language!r} is empty{_other_languages(parts, language)}; check pool.{which}s")
    for name in names:
        blank = [i for i, value in enumerate(table[name].to_pylist()) if is_blank(value)]
        if blank:
            raise ConfigError(
                f"the {which} set of {language!r} has no {name} in row {blank[0]} ({len(blank)} such rows); "
                f"fill it in, or remove the rows from pool.{which}s"
            )


def _other_languages(parts: Sequence[MappedTable], language: str) -> str:
    """The languages of the rows of an empty set, if they were dropped for their language."""
    shown = [f"{part.path} has {describe_spellings(part.dropped)}" for part in parts if part.dropped]
    return f": {', '.join(shown)}, and no rows of the language {language!r}" if shown else ""
