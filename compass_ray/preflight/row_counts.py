"""Number of rows of each language in a source, counted by the language column.

Key property: reads only the language and filter columns of Parquet files, and downloads nothing. Otherwise the count is
unknown. Row quality is not checked, so the pool can have fewer rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import languages
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources import atlas
from compass_ray.sources.benchmarks.layouts import LAYOUTS, detect_layout
from compass_ray.sources.column_mapping import read_raw

_ATLAS = {"atlas": atlas.FULL, "atlas:small": atlas.SMALL}
_SMALL = 32 << 20
"""Largest text file that is read completely, in bytes."""

RowCounts = dict[str, int | None]
"""Rows by language. None: it has rows, but they were not counted."""


def count_rows(source: SourceConfig, thorough: bool) -> RowCounts | None:
    """Rows of each language in a source. None if they cannot be counted cheaply."""
    if source.path in _ATLAS and not thorough:
        return dict.fromkeys(_ATLAS[source.path].languages)  # generating its rows takes seconds
    try:
        if source.path in _ATLAS:
            return _count_table(source, read_raw(source))
        files = _list_parquet_files(source)
        return _count_parquet(source, files) if files else _count_text(source)
    except (ConfigError, OSError, pa.ArrowException, KeyError):
        return None  # the pool stage reports the error


def _list_parquet_files(source: SourceConfig) -> list[str]:
    """Parquet files of a source: the file itself, or those of its folder, configuration and split."""
    path = Path(source.resolved_path())
    if path.suffix == ".parquet":
        return [str(path)]
    below = path / source.name if source.name else path
    return sorted(str(file) for file in below.rglob(f"{source.split}*.parquet")) if below.is_dir() else []


def _count_parquet(source: SourceConfig, files: list[str]) -> RowCounts:
    import pyarrow.dataset as pads  # imports pandas if installed

    data = pads.dataset(files, format="parquet")
    condition = _filter(source)
    if source.language is not None:
        return _by_code([(source.language, data.count_rows(filter=condition))])
    column = _language_column(source, data.schema.names)
    counts = data.to_table(columns=[column], filter=condition)[column].value_counts().to_pylist()
    return _by_code((str(each["values"]), each["counts"]) for each in counts)


def _count_text(source: SourceConfig) -> RowCounts | None:
    path = Path(source.resolved_path())
    if not path.is_file() or path.stat().st_size > _SMALL:
        return None
    return _count_table(source, read_raw(source))


def _count_table(source: SourceConfig, table: pa.Table) -> RowCounts:
    if source.language is not None:
        return _by_code([(source.language, table.num_rows)])
    column = table[_language_column(source, table.column_names)].cast(pa.string())
    return _by_code((str(each["values"]), each["counts"]) for each in column.value_counts().to_pylist())


def _language_column(source: SourceConfig, present: list[str]) -> str:
    layout = LAYOUTS[source.layout or detect_layout(present)]
    return {**layout.columns, **source.columns}["language"]


def _filter(source: SourceConfig) -> pc.Expression | None:
    text = {name: pc.field(name).cast(pa.string()) for name in (*source.include, *source.exclude)}
    conditions = [text[name] == value for name, value in source.include.items()]
    conditions += [~text[name].isin(list(values)) for name, values in source.exclude.items() if values]
    combined: pc.Expression | None = None
    for each in conditions:
        combined = each if combined is None else combined & each
    return combined


def _by_code(counted: Iterable[tuple[str, int]]) -> RowCounts:
    counts: Counter[str] = Counter()
    for name, count in counted:
        counts[_code(name)] += count
    return dict(counts)


def _code(name: str) -> str:
    try:
        return name if name in languages.LANGUAGES else languages.from_aya(name)
    except languages.UnknownLanguageError:
        return name
