"""Read the raw rows of a source: Parquet, JSON Lines, JSON, CSV, TSV, a folder that `datasets` reads, or a hub data set.

Key property: text files arrive as written, as a file and in a folder. No code of a data set is ever executed; remote code is
never trusted. Columns keep their names; see `compass_ray.sources.column_mapping` for ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources import atlas
from compass_ray.sources.conversations import conversation_columns
from compass_ray.sources.source_paths import (
    ATLAS_SIZES,
    DELIMITERS,
    JSON_ENDINGS,
    PARQUET,
    TAKEN,
    is_hub_id,
    list_files,
    missing_path_error,
    table_ending,
)
from compass_ray.sources.text_columns import filter_rows, join_tables, text_column
from compass_ray.sources.text_files import read_text_file

_OTHER_DATA_SUFFIXES = (".py", ".yaml")
"""Suffixes of files other than tables that may decide what a folder holds."""
_TEXT_BUILDERS = ("json", "csv")
_ONE_FORMAT = "give them the same format, or list each as a source"
_PLAIN_SETTINGS = {"name", "version", "data_dir", "data_files", "description", "sep", "delimiter"}
"""Settings of a folder of text files that do not change how cells are read."""


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
    if source.path in ATLAS_SIZES:
        return atlas.CONTENT_HASH
    path = Path(_resolve_path(source, language))
    if not path.exists():
        return ""
    files = [file for file in list_files(path) if _is_data(file.name)] if path.is_dir() else [path]
    return content_hash(*(f"{file.name}:{_file_sha256(file)}" for file in files))


def _is_data(name: str) -> bool:
    return table_ending(name) is not None or name.endswith(_OTHER_DATA_SUFFIXES)


def _file_sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _resolve_path(source: SourceConfig, language: str | None) -> str:
    return source.resolved_path().replace("{language}", language or "")


def _read_source(source: SourceConfig, language: str | None) -> pa.Table:
    path = _resolve_path(source, language)
    if path in ATLAS_SIZES:
        return _read_atlas(ATLAS_SIZES[path], source.split, language)
    if Path(path).is_file():
        return _read_file(path, source)
    if Path(path).is_dir():
        return _read_folder(path, source, language)
    if is_hub_id(path):
        return _load_dataset(path, source, language)
    raise missing_path_error(path)


def _read_atlas(size: atlas.AtlasSize, split: str, language: str | None) -> pa.Table:
    if split == "train":
        return atlas.atlas_pool(size)
    if split not in ("dev", "test") or language is None:
        raise ConfigError(f"the atlas has the splits train, dev and test, not {split!r}; set split to one of them")
    if language not in size.languages:
        raise ConfigError(f"the atlas of this size has no {language!r}; it has {', '.join(size.languages)}")
    return atlas.atlas_guide(language, size) if split == "dev" else atlas.atlas_test(language, size)


def _read_file(path: str, source: SourceConfig, delimiter: str | None = None) -> pa.Table:
    ending = table_ending(path)
    if ending is None:
        raise ConfigError(f"{path}: files of this kind are not read; give {TAKEN}")
    if ending != PARQUET:
        return read_text_file(path, delimiter, conversation_columns(source))
    try:
        return pq.read_table(path)
    except PermissionError as error:
        raise ConfigError(f"{path}: cannot be read as a table: {error.strerror}; change its permissions") from None
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{path}: cannot be read as a table: it is no complete Parquet file; download it again") from None


def _read_folder(path: str, source: SourceConfig, language: str | None) -> pa.Table:
    """Rows of a local folder: text files by our own reader, other files by `datasets`."""
    import datasets

    if renamed := _upper_case_files(Path(path)):
        raise ConfigError(f"{path}: folders are read by lower-case endings; rename {renamed[0]!r} to {renamed[0].lower()!r}")
    with _user_errors(path, source, language):
        builder = datasets.load_dataset_builder(path, _config_name(source, language))
    files = (builder.config.data_files or {}).get(source.split, ())
    _refuse_other_formats(Path(path), source, files)
    if _has_plain_text(builder, files):
        return join_tables([_read_file(file, source, getattr(builder.config, "sep", None)) for file in files])
    try:
        return _load_dataset(path, source, language)
    except ConfigError:
        for file in (each for each in files if table_ending(each) == PARQUET):
            _read_file(file, source)  # names the file if it is the damaged one
        raise


def _refuse_other_formats(folder: Path, source: SourceConfig, files: Sequence[str]) -> None:
    """Refuse tables of a split that `datasets` leaves out without a word, because it keeps one format of a folder.

    Raises:
        ConfigError: the folder has such tables, and neither a configuration nor its card says which files count.
    """
    taken = {_format(file) for file in files}
    if source.name is not None or None in taken or len(taken) != 1 or _card_names_files(folder):
        return
    named = all(source.split in os.path.relpath(file, folder) for file in files)
    tables = [file.relative_to(folder).as_posix() for file in list_files(folder) if not _is_metadata(file)]
    if others := [each for each in tables if (source.split in each or not named) and _format(each) not in (None, *taken)]:
        raise ConfigError(
            f"{folder}: the split {source.split!r} has files of several formats, such as {others[0]!r}; {_ONE_FORMAT}"
        )


def _format(file: str) -> str | None:
    """The format of a table as `datasets` groups endings."""
    ending = table_ending(file)
    return "json" if ending in JSON_ENDINGS else "csv" if ending in DELIMITERS else ending


def _is_metadata(file: Path) -> bool:
    """Whether a file of a folder describes its tables: `datasets` knows such files by their names."""
    from datasets.data_files import FILES_TO_IGNORE

    return file.name.startswith(".") or file.name in FILES_TO_IGNORE


def _card_names_files(folder: Path) -> bool:
    """Whether the card of a folder (README.md) lists configurations with their files."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    return card.is_file() and "configs" in (metadata_load(card) or {})


def _has_plain_text(builder: Any, files: Sequence[str]) -> bool:
    """Whether the files of a split are text tables with settings that our own reader follows."""
    config, default = builder.config, type(builder.config)()
    changed = {each.name for each in dataclasses.fields(config) if getattr(config, each.name) != getattr(default, each.name)}
    is_text = type(builder).__module__.rpartition(".")[2] in _TEXT_BUILDERS and len(getattr(config, "sep", ",")) == 1
    return is_text and changed <= _PLAIN_SETTINGS and bool(files) and all(table_ending(file) for file in files)


def _upper_case_files(folder: Path) -> list[str]:
    """Names of tables that `datasets` would leave out without a word, because it knows lower-case endings only."""
    names = sorted(file.name for file in list_files(folder))
    return [name for name in names if (ending := table_ending(name)) and ending not in name]


def _load_dataset(path: str, source: SourceConfig, language: str | None) -> pa.Table:
    import datasets

    name = _config_name(source, language)
    with _user_errors(path, source, language):
        found = datasets.load_dataset(path, name, split=source.split, revision=source.revision)
    return found.data.table


@contextlib.contextmanager
def _user_errors(path: str, source: SourceConfig, language: str | None) -> Iterator[None]:
    """Turn errors of `datasets` into one sentence with a remedy."""
    import datasets

    try:
        yield
    except (FileNotFoundError, ValueError, ConnectionError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0]
        name = _config_name(source, language)
        where = f"{path} ({name}, {source.split})" if name else f"{path} ({source.split})"
        scripted = "scripts are no longer supported" in reason
        remedy = "Give the path of downloaded files" if scripted else "Check the name, the split, and hub access"
        raise ConfigError(f"{where}: cannot be loaded: {reason}. {remedy}") from None


def _config_name(source: SourceConfig, language: str | None) -> str | None:
    if source.name is None:
        return None
    try:
        return source.name.format(language=language)
    except (KeyError, IndexError, ValueError):
        raise ConfigError(f"{source.path}: the name {source.name!r} may contain {{language}} and no other braces") from None


def _apply_filters(table: pa.Table, source: SourceConfig) -> pa.Table:
    if not table.column_names:
        return table  # no rows, which is reported when columns are mapped
    without = {column: values for column, values in source.exclude.items() if values}
    for column in (*source.include, *without):
        if column not in table.column_names:
            raise ConfigError(f"{source.path}: a filter names the column {column!r}; it has {table.column_names}")
    for column, value in source.include.items():
        table = filter_rows(table, pc.equal(text_column(table, column, source.path), value))
    for column, values in without.items():
        table = filter_rows(table, pc.invert(pc.is_in(text_column(table, column, source.path), pa.array(values, pa.string()))))
    return table
