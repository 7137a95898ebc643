"""Rows of each language in a source, counted by their language alone.

Key property: only the columns of the language and of the filters are read from Parquet, and nothing is fetched; where that
does not do, the count is unknown. Rows are not judged, so the pool may hold fewer.
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
"""Bytes up to which a text file is read whole."""

RowCounts = dict[str, int | None]
"""Rows of each language; None where there are some, uncounted."""


def count_rows(source: SourceConfig, thorough: bool) -> RowCounts | None:
    """Rows of each language in a source, None where that cannot be known cheaply."""
    if source.path in _ATLAS and not thorough:
        return dict.fromkeys(_ATLAS[source.path].languages)  # making its rows takes seconds
    try:
        if source.path in _ATLAS:
            return _count_table(source, read_raw(source))
        files = _list_parquet_files(source)
        return _count_parquet(source, files) if files else _count_text(source)
    except (ConfigError, OSError, pa.ArrowException, KeyError):
        return None  # the pool stage says what is wrong


def _list_parquet_files(source: SourceConfig) -> list[str]:
    """Files of a source: the one that is named, or those of the folder's configuration and split."""
    path = Path(source.resolved_path())
    if path.suffix == ".parquet":
        return [str(path)]
    below = path / source.name if source.name else path
    return sorted(str(file) for file in below.rglob(f"{source.split}*.parquet")) if below.is_dir() else []


def _count_parquet(source: SourceConfig, files: list[str]) -> RowCounts:
    import pyarrow.dataset as pads  # which imports pandas where there is one

    data = pads.dataset(files, format="parquet")
    kept = _filter(source)
    if source.language is not None:
        return _by_code([(source.language, data.count_rows(filter=kept))])
    column = _language_column(source, data.schema.names)
    found = data.to_table(columns=[column], filter=kept)[column].value_counts().to_pylist()
    return _by_code((str(each["values"]), each["counts"]) for each in found)


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
    kept = [text[name] == value for name, value in source.include.items()]
    kept += [~text[name].isin(list(values)) for name, values in source.exclude.items() if values]
    whole: pc.Expression | None = None
    for each in kept:
        whole = each if whole is None else whole & each
    return whole


def _by_code(found: Iterable[tuple[str, int]]) -> RowCounts:
    counts: Counter[str] = Counter()
    for spelled, count in found:
        counts[_code(spelled)] += count
    return dict(counts)


def _code(spelled: str) -> str:
    try:
        return spelled if spelled in languages.LANGUAGES else languages.from_aya(spelled)
    except languages.UnknownLanguageError:
        return spelled
