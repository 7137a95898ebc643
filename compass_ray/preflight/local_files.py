"""Files of rows and of models on this machine: present, readable, complete, and with the columns that a run needs.

Key property: a file is opened, not only looked up, so a missing permission is found. Of large files only the header is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from compass_ray.config import ConfigError, RunConfig, SourceConfig
from compass_ray.config.paths import DATA_ENDINGS, is_local
from compass_ray.models.model_resolver import ModelRole
from compass_ray.sources.column_mapping import require_columns
from compass_ray.sources.source_paths import list_files, missing_path_error
from compass_ray.sources.text_files import read_lines

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
_IDENTIFIER_ENDINGS = (".bin", ".ftz")
_FASTTEXT_MAGIC = (793_712_314).to_bytes(4, "little")
"""First bytes of every fastText model."""
_POOL_COLUMNS = ("prompt", "response", "language")
_GUIDE_COLUMNS = ("prompt",)
_TEST_COLUMNS = ("prompt", "option_a", "option_b", "answer")


def local_sources(config: RunConfig) -> Iterator[tuple[str, SourceConfig, tuple[str, ...]]]:
    """Setting, source and needed columns of every source that is on this machine, or should be. Hub data sets are not."""
    pool = config.pool
    named = [(f"pool.sources.{number}", source, _POOL_COLUMNS) for number, source in enumerate(pool.sources)]
    for setting, source, columns in (
        *named,
        ("pool.guides", pool.guides, _GUIDE_COLUMNS),
        ("pool.tests", pool.tests, _TEST_COLUMNS),
    ):
        extra = [(f"{setting}.extra_sources.{number}", each) for number, each in enumerate(source.extra_sources)]
        yield from ((key, part, columns) for key, part in ((setting, source), *extra) if _is_here(part))


def find_source_problems(config: RunConfig) -> dict[str, str]:
    """What keeps local sources from being read, by their settings. The pool is read once, and the sets for each language."""
    found = {
        setting: find_source_problem(source, columns, ("",) if setting.startswith("pool.sources") else config.languages)
        for setting, source, columns in local_sources(config)
    }
    found["evaluate.texts"] = _find_text_problem(config)
    return {setting: problem for setting, problem in found.items() if problem}


def _find_text_problem(config: RunConfig) -> str | None:
    """What keeps the text of a language from being read; None if there is none to read."""
    try:
        for code in config.languages if config.evaluate.texts else ():
            read_lines(str(config.evaluate.texts).replace("{language}", code), 1)
    except ConfigError as error:
        return str(error)
    return None


def _is_here(source: SourceConfig) -> bool:
    try:
        path = source.resolved_path()
    except ConfigError:  # a variable is missing: find_source_problem reports it
        return True
    return is_local(path) or "://" in path


def find_source_problem(source: SourceConfig, columns: tuple[str, ...], languages: tuple[str, ...] = ("",)) -> str | None:
    """What keeps a local source from being read; None if it can be read. Rows are not read.

    Args:
        source: a source from `local_sources`.
        columns: our columns that it must have.
        languages: codes that replace ``{language}`` in its path and its name. Files that several share are opened once.
    """
    schemas: dict[tuple[str, str], pa.Schema | None] = {}
    try:
        for code in languages:
            place = (source.resolved_path().replace("{language}", code), (source.name or "").replace("{language}", code))
            if place not in schemas:
                schemas[place] = _read_files(*place, source.split)
            if (schema := schemas[place]) is not None:
                require_columns(schema, source, columns, code or None)
    except ConfigError as error:
        return str(error)
    return None


def _read_files(name: str, configuration: str, split: str) -> pa.Schema | None:
    """Open the files of a source; the schema of the first if it is a Parquet file."""
    if "://" in name:
        raise missing_path_error(name)
    path = Path(name)
    files = [path] if path.is_file() else _list_split(path, configuration, split)
    for file in files:
        _open(file)
    return _read_schema(files[0]) if files and files[0].name.lower().endswith(".parquet") else None


def _list_split(folder: Path, configuration: str, split: str) -> list[Path]:
    """Files of a folder whose names say that they hold the split; other files may hold it too, or anything else."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist; correct the path, or remove the source")
    files = [file for file in list_files(folder) if file.name.lower().endswith(DATA_ENDINGS)]
    if not files:
        raise ConfigError(f"{folder} has no file of rows; expected files that end in {', '.join(DATA_ENDINGS)}")
    return [file for file in files if file.name.startswith(split) and folder / configuration in file.parents]


def _open(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            first = stream.read(1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); change its permissions") from None
    if not first:
        raise ConfigError(f"{file} is empty; write rows into it, or remove the source")


def _read_schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{file} is no complete Parquet file; write or download it again") from None


def find_model_problem(path: Path, part: ModelRole) -> str | None:
    """What keeps a model from being loaded from a local path; None if its files are present, readable and complete."""
    try:
        if part == "language_id":
            _check_identifier(path)
        else:
            _check_model_folder(path)
    except ConfigError as error:
        return str(error)
    return None


def _check_identifier(path: Path) -> None:
    files = sorted(each for each in path.iterdir() if each.suffix in _IDENTIFIER_ENDINGS) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path} has no file that ends in {' or '.join(_IDENTIFIER_ENDINGS)}; use a fastText model")
    _open(files[-1])
    with files[-1].open("rb") as stream:
        if stream.read(len(_FASTTEXT_MAGIC)) != _FASTTEXT_MAGIC:
            raise ConfigError(f"{files[-1]} is not a fastText model; use one such as GlotLID's model_v3.bin")


def _check_model_folder(path: Path) -> None:
    if path.is_file():
        raise ConfigError(f"{path} is a file; give the folder of the model")
    weights = next((found for pattern in _WEIGHTS if (found := sorted(path.rglob(pattern)))), [])
    if not weights:
        raise ConfigError(f"{path} has no weights ({', '.join(_WEIGHTS)}); copy or download the complete model")
    described = [name for name in ("modules.json", "config.json") if (path / name).is_file()]
    if not described:
        raise ConfigError(f"{path} has no config.json; copy or download the complete model")
    for file in (path / described[0], *weights):
        _open(file)
        if file.suffix == ".safetensors":
            _check_weights(file)


def _check_weights(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "np"):
            pass
    except SafetensorError:
        raise ConfigError(f"{file} is damaged or incomplete; copy or download it again") from None
