"""Every setting that may be a path, made absolute when a configuration is read.

Key property: a relative path is taken from the working directory of the command, once. Workers and later commands in other
folders then use the same files. A name that could be a hub id is a path if a file or folder of that name exists. Names of the
package (``atlas``, ``zero3``) and URIs stay. No file is read.

Models and sources may name an environment variable: ``${NAME}``, or ``${NAME:-DEFAULT}`` with what is used without it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from compass_ray.config.base import ConfigError
from compass_ray.config.data import ATLAS, SourceConfig
from compass_ray.config.full_finetuning import PACKAGED_CONFIGS
from compass_ray.config.run import RunConfig
from compass_ray.config.training import EvaluateConfig

DATA_ENDINGS = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".gz", ".bz2", ".xz")
"""Endings of files of rows, in lower case; no hub id has one."""
_WITH_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def is_written_as_path(name: str) -> bool:
    """Whether a name cannot be a hub id.

    >>> is_written_as_path("./base"), is_written_as_path("models/swahili/base"), is_written_as_path("organisation/model")
    (True, True, False)
    """
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")


def is_local(name: str) -> bool:
    """Whether a model or a source is a path on this machine: written as one, or an existing file or folder."""
    if name.partition(":")[0] == ATLAS or "://" in name:
        return False
    as_path = is_written_as_path(name) or "{" in name or name.lower().endswith(DATA_ENDINGS)
    return as_path or Path(name).expanduser().exists()


def absolute_path(name: str) -> str:
    """A path as an absolute one, with ``~`` expanded; a URI is unchanged."""
    return name if "://" in name else os.path.abspath(os.path.expanduser(name))


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths.

    Sources keep their path as written, because it is part of fingerprints, and get the folder that it is taken from.
    """
    pool, transfer = config.pool, config.select.transfer
    sets = {"guides": _with_folder(pool.guides), "tests": _with_folder(pool.tests)}
    changes = {
        "pool": pool.model_copy(update={"sources": tuple(_with_folder(source) for source in pool.sources), **sets}),
        "embed": config.embed.model_copy(update={"encoder": _model(config.embed.encoder, "embed.encoder")}),
        "train": config.train.model_copy(update={"base_model": _model(config.train.base_model, "train.base_model")}),
        "identifier": config.identifier.model_copy(update={"model": _model(config.identifier.model, "identifier.model")}),
        "full": config.full.model_copy(update={"deepspeed": _deepspeed(config.full.deepspeed)}),
        "evaluate": _evaluate(config.evaluate),
        "serve": config.serve.model_copy(update={"api_keys": _file(config.serve.api_keys)}),
        "select": config.select.model_copy(update={"transfer": transfer.model_copy(update={"results": _file(transfer.results)})}),
    }
    return config.model_copy(update=changes)


def _model(name: str, setting: str) -> str:
    given = _with_variables(name, setting, "a local path or a hub id")
    if not given.strip():
        raise ConfigError(f"{setting} is empty; give a hub id, a local path or {ATLAS!r}")
    return absolute_path(given) if is_local(given) else given


def _with_variables(name: str, setting: str, value: str) -> str:
    """A name with ``${NAME}`` and ``${NAME:-DEFAULT}`` read from the environment. ``value`` says what a variable should hold."""

    def read(found: re.Match[str]) -> str:
        known = os.environ.get(found[1]) or found[2]
        if not known:
            raise ConfigError(f"{setting}: the environment variable {found[1]} is not set; set it to {value}")
        return known

    return _VARIABLE.sub(read, name)


def _evaluate(section: EvaluateConfig) -> EvaluateConfig:
    harness = section.harness
    folder = _variable_path(harness.data, "evaluate.harness.data", "the folder of the benchmarks")
    texts = _variable_path(section.texts, "evaluate.texts", "the folder of the texts")
    return section.model_copy(update={"texts": texts, "harness": harness.model_copy(update={"data": folder})})


def _variable_path(name: str | None, setting: str, value: str) -> str | None:
    return absolute_path(_with_variables(name, setting, value)) if name else name


def _deepspeed(name: str) -> str:
    return name if name in PACKAGED_CONFIGS else absolute_path(name)


def _file(name: str | None) -> str | None:
    return absolute_path(name) if name else name


def _with_folder(source: SourceConfig) -> SourceConfig:
    """The source with its folder. A variable that is set keeps its name, because the path is part of fingerprints."""
    path = _WITH_DEFAULT.sub(lambda found: f"${{{found[1]}}}" if os.environ.get(found[1]) else found[2], source.path)
    source = source.model_copy(update={"path": path})
    extra = tuple(_with_folder(each) for each in source.extra_sources)
    folder = source.folder or (os.getcwd() if _is_relative(source) else None)
    return source.model_copy(update={"folder": folder, "extra_sources": extra})


def _is_relative(source: SourceConfig) -> bool:
    try:
        path = source.resolved_path()
    except ConfigError:  # a missing variable is reported where the source is read
        return False
    return is_local(path) and not os.path.isabs(path)
