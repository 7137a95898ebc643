"""Read one source as an Arrow table with our column names.

Key property: the layout is recognised by its columns, so a hub data set, a local copy of it and the atlas go through
the same code. This module checks that columns are there; it does not judge rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as paj
import pyarrow.parquet as pq

from compass_ray import languages
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources import atlas

LAYOUTS: Mapping[str, Mapping[str, str]] = {
    "Aya dataset": {"prompt": "inputs", "response": "targets", "language": "language_code"},
    "Aya collection": {"prompt": "inputs", "response": "targets", "language": "language"},
    "Global-MMLU": {
        "prompt": "question",
        "item_id": "sample_id",
        "option_a": "option_a",
        "option_b": "option_b",
        "option_c": "option_c",
        "option_d": "option_d",
        "answer": "answer",
    },
    "own": {"prompt": "prompt", "response": "response", "language": "language"},
}
"""Our column to theirs, in the order in which layouts are tried."""

_DATA_SUFFIXES = {".parquet", ".jsonl", ".json", ".ndjson", ".py", ".yaml"}
_ATLAS_SIZES = {"atlas": atlas.FULL, "atlas:small": atlas.SMALL}


def load(source: SourceConfig, needed: tuple[str, ...], language: str | None = None) -> pa.Table:
    """Rows of a source under our names.

    Args:
        source: where the rows are.
        needed: our columns that must be there; ``subject`` and ``source`` are added where the source has them.
        language: fills ``{language}`` in the path and name, and keeps that language's rows where there are several.

    Returns:
        A table of string columns: ``needed`` plus whichever optional ones exist.

    Raises:
        ConfigError: the source cannot be read or lacks a column.
    """
    table = _filtered(_raw(source, language), source)
    names = _mapping(table.column_names, source, needed)
    columns = {ours: table[theirs].cast(pa.string()) for ours, theirs in names.items()}
    if source.language is not None:
        columns["language"] = pa.chunked_array([pa.array([source.language] * table.num_rows, pa.string())])
    found = pa.table(columns)
    if language is None or "language" not in columns:
        return found
    spelled = [language, languages.language(language).aya_code]
    return found.filter(pc.is_in(found["language"], pa.array(spelled, pa.string())))


def source_content(source: SourceConfig, language: str | None = None) -> str:
    """What a fingerprint holds of a source's content: a hash where it lies on this machine, nothing for the hub."""
    path = Path(__file__).parent / "atlas" if source.path in _ATLAS_SIZES else Path(_path(source, language))
    if not path.exists():
        return ""
    files = sorted(p for p in path.rglob("*") if p.suffix in _DATA_SUFFIXES) if path.is_dir() else [path]
    hashes = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return content_hash(*(f"{file.name}:{digest}" for file, digest in zip(files, hashes, strict=True)))


def _path(source: SourceConfig, language: str | None) -> str:
    return source.resolved_path().replace("{language}", language or "")


def _raw(source: SourceConfig, language: str | None) -> pa.Table:
    path = _path(source, language)
    if path in _ATLAS_SIZES:
        return _atlas(_ATLAS_SIZES[path], source.split, language)
    if path.endswith(".parquet"):
        return _readable(path, pq.read_table)
    if path.endswith((".jsonl", ".json", ".ndjson")):
        return _readable(path, paj.read_json)
    return _data_set(path, source, language)


def _atlas(size: atlas.AtlasSize, split: str, language: str | None) -> pa.Table:
    if split == "train":
        return atlas.atlas_pool(size)
    if split not in ("dev", "test") or language is None:
        raise ConfigError(f"the atlas has the splits train, dev and test, not {split!r}; set split to one of them")
    if language not in size.languages:
        raise ConfigError(f"the atlas of this size has no {language!r}; it has {', '.join(size.languages)}")
    return atlas.atlas_guide(language, size) if split == "dev" else atlas.atlas_test(language, size)


def _readable(path: str, read: object) -> pa.Table:
    if not Path(path).is_file():
        raise ConfigError(f"{path}: there is no such file; give a Parquet or JSON Lines file, a folder, or a hub id")
    try:
        return read(path)  # type: ignore[operator]
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as a table ({error})") from None


def _data_set(path: str, source: SourceConfig, language: str | None) -> pa.Table:
    import datasets

    name = _name(source, language)
    try:
        found = datasets.load_dataset(path, name, split=source.split, revision=source.revision)
    except (FileNotFoundError, ValueError, ConnectionError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0]
        where = f"{path} ({name}, {source.split})" if name else f"{path} ({source.split})"
        raise ConfigError(f"{where}: cannot be loaded: {reason}. Check the name, the split, and hub access") from None
    return found.data.table


def _name(source: SourceConfig, language: str | None) -> str | None:
    if source.name is None:
        return None
    try:
        return source.name.format(language=language)
    except (KeyError, IndexError, ValueError):
        raise ConfigError(f"{source.path}: the name {source.name!r} may hold {{language}} and no other braces") from None


def _filtered(table: pa.Table, source: SourceConfig) -> pa.Table:
    without = {column: values for column, values in source.without.items() if values}
    for column in (*source.where, *without):
        if column not in table.column_names:
            raise ConfigError(f"{source.path}: a filter names the column {column!r}; it has {table.column_names}")
    for column, value in source.where.items():
        table = table.filter(pc.equal(table[column].cast(pa.string()), value))
    for column, values in without.items():
        table = table.filter(pc.invert(pc.is_in(table[column].cast(pa.string()), pa.array(values, pa.string()))))
    return table


def _mapping(present: list[str], source: SourceConfig, needed: tuple[str, ...]) -> dict[str, str]:
    wanted = [n for n in needed if not (n == "language" and source.language is not None)]
    layout = next((m for m in LAYOUTS.values() if set(m.values()) <= set(present)), LAYOUTS["own"])
    names = {**layout, **source.columns}
    missing = [n for n in wanted if names.get(n, n) not in present]
    if missing:
        raise ConfigError(
            f"{source.path}: no column for {', '.join(missing)}; it has {', '.join(present)}. "
            f"Say which is which, for example columns: {{{missing[0]}: {present[0] if present else 'NAME'}}}"
        )
    optional = [n for n in ("subject", "source", "item_id", "language") if names.get(n, n) in present]
    return {n: names.get(n, n) for n in dict.fromkeys([*wanted, *optional])}
