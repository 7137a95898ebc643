"""Read the raw rows of a source: Parquet, JSON Lines, CSV, TSV, a folder that `datasets` reads, or a hub data set.

Key property: no code of a data set is ever executed; remote code is never trusted. Columns keep their names; see
`compass_ray.sources.column_mapping` for ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pac
import pyarrow.json as paj
import pyarrow.parquet as pq

from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources import atlas

_DATA_SUFFIXES = {".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".py", ".yaml"}
_ATLAS_SIZES = {"atlas": atlas.FULL, "atlas:small": atlas.SMALL}


def read_raw(source: SourceConfig, language: str | None = None) -> pa.Table:
    """Rows of one source with the original columns, after its filters.

    Raises:
        ConfigError: the source cannot be read, or a filter names an unknown column.
    """
    return _apply_filters(_read_source(source, language), source)


def source_content(source: SourceConfig, language: str | None = None) -> str:
    """Hash of a source's content for a fingerprint; empty for hub data sets, whose revision counts instead."""
    contents = [_content_hash(each, language) for each in (source, *source.extra_sources)]
    return contents[0] if len(contents) == 1 else content_hash(*contents)


def _content_hash(source: SourceConfig, language: str | None) -> str:
    if source.path in _ATLAS_SIZES:
        return atlas.CONTENT_HASH
    path = Path(_resolve_path(source, language))
    if not path.exists():
        return ""
    files = sorted(p for p in path.rglob("*") if p.suffix in _DATA_SUFFIXES) if path.is_dir() else [path]
    return content_hash(*(f"{file.name}:{_file_sha256(file)}" for file in files))


def _file_sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _resolve_path(source: SourceConfig, language: str | None) -> str:
    return source.resolved_path().replace("{language}", language or "")


def _read_source(source: SourceConfig, language: str | None) -> pa.Table:
    path = _resolve_path(source, language)
    if path in _ATLAS_SIZES:
        return _read_atlas(_ATLAS_SIZES[path], source.split, language)
    if path.endswith(".parquet"):
        return _read_file(path, pq.read_table)
    if path.endswith((".jsonl", ".json", ".ndjson")):
        return _read_file(path, paj.read_json)
    if path.endswith((".csv", ".tsv")):
        return _read_file(path, _read_delimited)
    return _load_dataset(path, source, language)


def _read_atlas(size: atlas.AtlasSize, split: str, language: str | None) -> pa.Table:
    if split == "train":
        return atlas.atlas_pool(size)
    if split not in ("dev", "test") or language is None:
        raise ConfigError(f"the atlas has the splits train, dev and test, not {split!r}; set split to one of them")
    if language not in size.languages:
        raise ConfigError(f"the atlas of this size has no {language!r}; it has {', '.join(size.languages)}")
    return atlas.atlas_guide(language, size) if split == "dev" else atlas.atlas_test(language, size)


def _read_delimited(path: str) -> pa.Table:
    """Read a CSV or TSV file; TSV has no quoting."""
    quote = False if path.endswith(".tsv") else '"'
    parse = pac.ParseOptions(delimiter="\t" if path.endswith(".tsv") else ",", quote_char=quote, newlines_in_values=bool(quote))
    return pac.read_csv(path, pac.ReadOptions(), parse, pac.ConvertOptions(quoted_strings_can_be_null=False))


def _read_file(path: str, read: Callable[[str], pa.Table]) -> pa.Table:
    if not Path(path).is_file():
        raise ConfigError(f"{path}: the file does not exist; give a Parquet, JSON Lines, CSV or TSV file, a folder, or a hub id")
    try:
        return read(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as a table ({error})") from None


def _load_dataset(path: str, source: SourceConfig, language: str | None) -> pa.Table:
    import datasets

    name = _config_name(source, language)
    try:
        found = datasets.load_dataset(path, name, split=source.split, revision=source.revision)
    except (FileNotFoundError, ValueError, ConnectionError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0]
        where = f"{path} ({name}, {source.split})" if name else f"{path} ({source.split})"
        scripted = "scripts are no longer supported" in reason
        remedy = "Give the path of downloaded files" if scripted else "Check the name, the split, and hub access"
        raise ConfigError(f"{where}: cannot be loaded: {reason}. {remedy}") from None
    return found.data.table


def _config_name(source: SourceConfig, language: str | None) -> str | None:
    if source.name is None:
        return None
    try:
        return source.name.format(language=language)
    except (KeyError, IndexError, ValueError):
        raise ConfigError(f"{source.path}: the name {source.name!r} may contain {{language}} and no other braces") from None


def _apply_filters(table: pa.Table, source: SourceConfig) -> pa.Table:
    without = {column: values for column, values in source.exclude.items() if values}
    for column in (*source.include, *without):
        if column not in table.column_names:
            raise ConfigError(f"{source.path}: a filter names the column {column!r}; it has {table.column_names}")
    for column, value in source.include.items():
        table = table.filter(pc.equal(table[column].cast(pa.string()), value))
    for column, values in without.items():
        table = table.filter(pc.invert(pc.is_in(table[column].cast(pa.string()), pa.array(values, pa.string()))))
    return table
