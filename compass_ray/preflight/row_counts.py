"""Number of rows of each language that the pool takes from a source.

Key property: rows of a source of moderate size are read and checked as the pool stage does it, so blank, repeated and surplus
rows do not count. Of large Parquet files only the language and filter columns are read. Nothing is downloaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compass_ray import languages
from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources.benchmarks.layouts import LAYOUTS, source_layout
from compass_ray.sources.column_mapping import load_parts, require_columns
from compass_ray.sources.pool import UNKNOWN_LANGUAGE, read_pool
from compass_ray.sources.source_paths import ATLAS_SIZES, PARQUET, list_files, table_ending

_SMALL = 32 << 20
"""Largest text file, or folder without Parquet files of the split, that is read completely, in bytes."""
_FEW_ROWS = 100_000
"""Maximum number of Parquet rows that are read completely."""

RowCounts = dict[str, int | None]
"""Rows by language. None: it has rows, but they were not counted."""


@dataclass(frozen=True)
class SourceCount:
    """Rows that the pool takes from a source, or why it takes none. ``counts`` is None if it was not counted."""

    counts: RowCounts | None = None
    is_upper_bound: bool = False
    """Whether blank and repeated rows were not looked for."""
    problem: str = ""


def count_rows(source: SourceConfig, pool: PoolConfig, thorough: bool) -> SourceCount:
    """Rows of each language that a pool takes from one of its sources, as far as they can be counted cheaply."""
    if source.path in ATLAS_SIZES and not thorough:
        return SourceCount(dict.fromkeys(ATLAS_SIZES[source.path].languages))  # generating its rows takes seconds
    try:
        files = _list_parquet_files(source)
        if files and not (thorough and _has_few_rows(files)):
            return SourceCount(_count_by_language(source, files), is_upper_bound=True)
        if files or source.path in ATLAS_SIZES or _is_small_text(source):
            return SourceCount(_count_usable(source, pool))
    except ConfigError as error:
        return SourceCount(problem=str(error))
    except (OSError, pa.ArrowException, KeyError):
        return SourceCount()  # the pool stage reports the error
    return SourceCount()


def has_subjects(source: SourceConfig, thorough: bool) -> bool | None:
    """Whether a source has a column of subjects; None if it was not looked at. Text files are read if ``thorough``."""
    if source.path in ATLAS_SIZES:
        return True
    try:
        if files := _list_parquet_files(source):
            require_columns(pq.read_schema(files[0]), source, ("subject",))
            return True
        if not (thorough and _is_small_text(source)):
            return None
        return any("subject" in part.table.column_names for part in load_parts(source, ("prompt",)))
    except ConfigError:
        return False
    except (OSError, pa.ArrowException, KeyError):
        return None  # check_sources or the pool stage reports it


def _count_usable(source: SourceConfig, pool: PoolConfig) -> RowCounts:
    """Accepted rows by language, and rows of unknown languages by the language as it is written."""
    found = read_pool(PoolConfig(sources=(source,), languages=pool.languages))
    unknown = found.rejected.filter(pc.equal(found.rejected["reason"], UNKNOWN_LANGUAGE))["language"].drop_null()
    return dict(Counter(found.rows["language"].to_pylist()) + Counter(unknown.to_pylist()))


def _list_parquet_files(source: SourceConfig) -> list[str]:
    """Parquet files of a source: the file itself, or those of its folder, configuration and split."""
    path = Path(source.resolved_path())
    if table_ending(path.name) == PARQUET:
        return [str(path)]
    below = path / source.name if source.name else path
    return [str(file) for file in list_files(below) if file.match(f"{source.split}*.parquet")] if below.is_dir() else []


def _has_few_rows(files: Iterable[str]) -> bool:
    return int(sum(pq.read_metadata(file).num_rows for file in files)) <= _FEW_ROWS


def _is_small_text(source: SourceConfig) -> bool:
    path = Path(source.resolved_path())
    files = [path] if path.is_file() else list_files(path)
    return bool(files) and sum(file.stat().st_size for file in files) <= _SMALL


def _count_by_language(source: SourceConfig, files: list[str]) -> RowCounts:
    import pyarrow.dataset as pads  # imports pandas if installed

    data = pads.dataset(files, format="parquet")
    condition = _filter(source)
    if source.language is not None:
        return _by_code(source, [(source.language, data.count_rows(filter=condition))])
    column = _language_column(source, data.schema.names)
    counts = data.to_table(columns=[column], filter=condition)[column].value_counts().to_pylist()
    return _by_code(source, ((str(each["values"]), each["counts"]) for each in counts))


def _language_column(source: SourceConfig, present: list[str]) -> str:
    layout = LAYOUTS[source_layout(source, present)]
    return {"language": "language", **layout.columns, **source.columns}["language"]


def _filter(source: SourceConfig) -> pc.Expression | None:
    text = {name: pc.field(name).cast(pa.string()) for name in (*source.include, *source.exclude)}
    conditions = [text[name] == value for name, value in source.include.items()]
    conditions += [~text[name].isin(list(values)) for name, values in source.exclude.items() if values]
    combined: pc.Expression | None = None
    for each in conditions:
        combined = each if combined is None else combined & each
    return combined


def _by_code(source: SourceConfig, counted: Iterable[tuple[str, int]]) -> RowCounts:
    counts: Counter[str] = Counter()
    for name, count in counted:
        counts[languages.pool_code(name) or name] += count
    return {code: min(count, source.rows_per_language or count) for code, count in counts.items()}
