"""Load the rows of a source under this project's column names.

Key property: the layout is detected by its columns, or named in the settings. A hub data set, a local copy of it and the
atlas therefore use the same code. This module checks that columns exist; it does not validate rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import languages
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources.benchmarks.layouts import LAYOUTS, OPTIONAL, OPTIONS, BenchmarkLayout, source_layout
from compass_ray.sources.conversations import MESSAGES
from compass_ray.sources.readers import read_raw, source_content
from compass_ray.sources.text_columns import find_conversations, text_column

__all__ = ["MappedTable", "load_parts", "load_rows", "read_raw", "require_columns", "source_content"]


@dataclass(frozen=True)
class MappedTable:
    """Rows of one source as string columns under our names, and their layout."""

    table: pa.Table
    layout: BenchmarkLayout
    path: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows of other languages that were dropped, by the language as it is written."""


def load_rows(source: SourceConfig, needed: tuple[str, ...], language: str | None = None) -> pa.Table:
    """Rows of a source and of its extra sources, under our names.

    Args:
        source: where the rows are.
        needed: our columns that must exist. ``subject``, ``source`` and row identifiers are added if the source has them,
            and all further options and ``family`` if ``option_a`` is needed.
        language: replaces ``{language}`` in path and name; rows of other languages are dropped.

    Returns:
        A table of string columns: ``needed`` plus whichever optional ones exist.

    Raises:
        ConfigError: the source cannot be read or lacks a column.
    """
    parts = [part.table for part in load_parts(source, needed, language)]
    return pa.concat_tables(parts, promote_options="default")


def load_parts(
    source: SourceConfig, needed: tuple[str, ...], language: str | None = None, optional: tuple[str, ...] = ()
) -> list[MappedTable]:
    """Rows of a source and of its extra sources as `load_rows` gives them, each with its layout.

    Columns ``optional`` are added if a source has them.
    """
    return [_load_part(each, needed, language, optional) for each in (source, *source.extra_sources)]


def require_columns(schema: pa.Schema, source: SourceConfig, needed: tuple[str, ...], language: str | None = None) -> None:
    """Check by its schema alone that a source has the columns that are needed, under our names.

    Raises:
        ConfigError: a column is missing; the message says which columns there are.
    """
    layout, table = _derive(schema.empty_table(), source, language)
    _map_columns(table, source, layout, needed, schema.names)


def _load_part(
    source: SourceConfig, needed: tuple[str, ...], language: str | None, optional: tuple[str, ...] = ()
) -> MappedTable:
    raw = read_raw(source, language)
    layout, table = _derive(raw, source, language)
    names = _map_columns(table, source, layout, needed, raw.column_names, optional)
    columns = {ours: text_column(table, theirs, source.path) for ours, theirs in names.items()}
    if source.language is not None:
        columns["language"] = pa.chunked_array([pa.array([source.language] * table.num_rows, pa.string())])
    return _keep_language(MappedTable(pa.table(columns), layout, source.path), language)


def _derive(raw: pa.Table, source: SourceConfig, language: str | None) -> tuple[BenchmarkLayout, pa.Table]:
    """The layout of a source, and its table with the columns that the layout computes."""
    layout = LAYOUTS[source_layout(source, raw.column_names)]
    column = source.columns.get(MESSAGES, MESSAGES)
    if MESSAGES in layout.marks and column != MESSAGES and column in raw.column_names:
        kept = raw.drop_columns([MESSAGES]) if MESSAGES in raw.column_names else raw
        raw = kept.rename_columns([MESSAGES if name == column else name for name in kept.column_names])
    if missing := [name for name in layout.marks if name not in raw.column_names and raw.column_names]:
        listed = f"no column for {', '.join(missing)}; it has {', '.join(raw.column_names)}"
        raise ConfigError(f"{source.path}: {listed}. Correct the layout, or columns: {{{MESSAGES}: ...}}")
    return layout, layout.derive(raw, language) if raw.column_names else raw


def _keep_language(part: MappedTable, language: str | None) -> MappedTable:
    """The rows of a language under any of its codes, if the rows have a language."""
    if language is None or "language" not in part.table.column_names:
        return part
    counts = Counter(part.table["language"].to_pylist())
    spelled = [each for each in counts if each is not None and languages.pool_code(each) == language]
    kept = part.table.filter(pc.is_in(part.table["language"], pa.array(spelled, pa.string())))
    dropped = {str(each): count for each, count in counts.most_common() if each not in spelled}
    return MappedTable(kept, part.layout, part.path, dropped)


def _map_columns(
    table: pa.Table,
    source: SourceConfig,
    layout: BenchmarkLayout,
    needed: tuple[str, ...],
    written: Sequence[str],
    optional: tuple[str, ...] = (),
) -> dict[str, str]:
    """The column of the table for each of ours. ``written`` are those of the source, without derived ones."""
    present = table.column_names
    wanted = [n for n in needed if not (n == "language" and source.language is not None)]
    names = {**layout.columns, **source.columns}
    missing = [n for n in wanted if names.get(n, n) not in present]
    if missing and not present:
        raise ConfigError(f"{source.path} has no rows; it needs {', '.join(wanted)}")
    if missing:
        remedy = _suggest_columns(table, missing[0], written)
        raise ConfigError(f"{source.path}: no column for {', '.join(missing)}; it has {', '.join(written)}. {remedy}")
    more = (*OPTIONS, "family") if OPTIONS[0] in needed else ()
    found = [n for n in (*OPTIONAL, *more, *optional) if names.get(n, n) in present]
    return {n: names.get(n, n) for n in dict.fromkeys([*wanted, *found])}


def _suggest_columns(table: pa.Table, missing: str, written: Sequence[str]) -> str:
    """What to do about a missing column."""
    if missing == "language":
        return "Set language: CODE if all rows have one language, or map its column: columns: {language: NAME}."
    column = find_conversations(table)
    example = f"{MESSAGES}: {column}" if column else f"{missing}: {written[0]}"
    return f"Map the columns, for example columns: {{{example}}}."
