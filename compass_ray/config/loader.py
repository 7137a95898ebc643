"""Load a configuration from a preset, a YAML file and ``key=value`` overrides; errors say what to change."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from importlib import resources as package_files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from compass_ray.config.base import ConfigError, ConfigSection
from compass_ray.config.config_keys import (
    annotation_at,
    describe_nearest,
    describe_nearest_setting,
    dotted_prefix,
    present_path,
    section_at,
    section_below,
)
from compass_ray.config.paths import with_absolute_paths
from compass_ray.config.run import RunConfig
from compass_ray.config.yaml_loader import MAX_DEPTH, read_yaml
from compass_ray.texts import shorten

_UNSET = ("", "null", "~")
"""Texts of an override that unset a text setting."""


def list_presets() -> tuple[str, ...]:
    """Names of the presets that ship with the package."""
    return tuple(sorted(Path(file.name).stem for file in _presets().iterdir() if file.name.endswith(".yaml")))


def read_preset_text(name: str) -> str:
    """The YAML text of a preset, with its comments.

    Raises:
        ConfigError: unknown preset.
    """
    if name not in list_presets():
        raise ConfigError(f"preset {shorten(name)!r} does not exist; {describe_nearest(name, list_presets())}")
    return (_presets() / f"{name}.yaml").read_text("utf-8")


def _presets() -> Traversable:
    return package_files.files("compass_ray") / "presets"


def load_run_config(
    preset: str | None = None,
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    languages: Iterable[str] | None = None,
) -> RunConfig:
    """Read a preset or a YAML file, then apply ``key=value`` overrides in order.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key or a value out of range.
    """
    return resolve_config(read_raw_config(preset, file), overrides, languages)


def read_raw_config(preset: str | None = None, file: str | Path | None = None) -> dict[str, Any]:
    """The settings of a preset or a YAML file, with ``extends`` expanded and under present names; nothing is validated.

    Raises:
        ConfigError: neither is given, unknown preset, or unreadable file.
    """
    if file:
        return _read_file(Path(file))
    if preset:
        return _read_preset(preset)
    raise ConfigError(
        f"no settings are given; add --preset NAME ({', '.join(list_presets())}) or --config FILE. 'compass-ray presets' "
        f"describes the presets, and 'compass-ray init ROWS' writes a file for your own rows"
    )


def resolve_config(tree: Mapping[str, Any], overrides: Iterable[str] = (), languages: Iterable[str] | None = None) -> RunConfig:
    """The configuration of a tree of settings with ``key=value`` overrides applied in order; the tree is not changed.

    Raises:
        ConfigError: unknown key or a value out of range.
    """
    settings = copy.deepcopy(dict(tree))
    if languages is not None:
        settings["languages"] = list(languages)
    for override in overrides:
        _apply(settings, override)
    return parse_config(settings)


def with_overrides(config: RunConfig, overrides: Iterable[str], languages: Iterable[str] | None = None) -> RunConfig:
    """The configuration with the languages, if given, and ``key=value`` overrides applied in order.

    Raises:
        ConfigError: an unknown key or a value out of range.
    """
    return resolve_config(config.model_dump(mode="json"), overrides, languages)


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """Validate a plain tree of settings, and make its paths absolute.

    Raises:
        ConfigError: the first problem; for an unknown key with the closest known one.
    """
    present = _with_present_names(tree, RunConfig)
    try:
        return with_absolute_paths(RunConfig.model_validate(present))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _read_preset(name: str) -> dict[str, Any]:
    return _expand(read_yaml(read_preset_text(name)))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file with --config") from None
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise ConfigError(
            f"{path}: not valid YAML in UTF-8: line {line} has the byte 0x{byte:02X}; write the file again as UTF-8"
        ) from None
    return read_text(text, path)


def read_text(text: str, path: Path) -> dict[str, Any]:
    """The settings of the text of a YAML file, as `read_raw_config` reads them. ``path`` names it in messages.

    Raises:
        ConfigError: the text is not YAML, or not settings.
    """
    try:
        tree = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML in UTF-8 ({error})") from None
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from None
    if tree is None:
        raise ConfigError(f"{path}: the file is empty; write settings as 'key: value' lines, or 'extends: PRESET'")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected settings as 'key: value' lines, found {type(tree).__name__}")
    return _expand(tree)


def _expand(tree: dict[str, Any]) -> dict[str, Any]:
    """Merge a file into the preset that it names with ``extends: NAME``, if any."""
    base = tree.pop("extends", None)
    settings = _with_present_names(tree, RunConfig)
    return _merge(_read_preset(base), settings) if base else settings


def _with_present_names(tree: Any, section: type[ConfigSection], path: tuple[str, ...] = ()) -> Any:
    """Settings under their present names at every depth, so that a file overrides a preset and --set overrides both."""
    if isinstance(tree, list | tuple):
        return [_with_present_names(entry, section, (*path, str(number))) for number, entry in enumerate(tree)]
    if not isinstance(tree, Mapping):
        return tree
    try:
        present = section.with_present_names(tree, prefix=dotted_prefix(path))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return {
        key: _with_present_names(value, below, (*path, key)) if (below := section_below(section, key)) else value
        for key, value in present.items()
    }


def _merge(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) and value else value
    return merged


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {shorten(override)!r}: expected key=value, for example select.budget=1.2")
    path = key.strip().split(".")
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"--set {shorten(override)!r}: the key has {len(path)} parts; no setting has more than {MAX_DEPTH}")
    *sections, leaf = present = present_path(path)
    value = _read_value(text, annotation_at(present), override)
    node: Any = tree
    for section in sections:
        node = _below(node, section, override)
    if isinstance(node, list):
        node[_position(node, leaf, override)] = value
    elif leaf == "path":
        node.update(path=value, folder=None)  # a new relative path is taken from the working directory
    else:
        node[leaf] = value


def _read_value(text: str, annotation: Any, override: str) -> Any:
    """The value of an override: a text setting takes the text as it stands, any other setting reads YAML.

    A text in quotes is read as YAML. ``null`` and an empty text unset a text setting that may be unset.
    """
    options = set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}
    is_text = str in options and options <= {str, type(None)}
    try:
        value = read_yaml(text) if not is_text or text.strip()[:1] in ("'", '"') else None
        if not is_text or isinstance(value, str):
            return value
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {shorten(override)!r}: {shorten(text)!r} is not a YAML value ({shorten(error)})") from None
    except ConfigError as error:
        raise ConfigError(f"--set {shorten(override)!r}, {error}") from None
    if control := yaml.reader.Reader.NON_PRINTABLE.search(text):
        raise ConfigError(f"--set {shorten(override)!r}: the text has the character {control.group()!r}; remove it")
    return None if type(None) in options and text.strip() in _UNSET else text


def _below(node: Any, section: str, override: str) -> Any:
    """The section or list entry of that name; an unset section is created."""
    if isinstance(node, list):
        found = node[_position(node, section, override)]
    else:
        if node.get(section) is None:
            node[section] = {}
        found = node[section]
    if not isinstance(found, dict | list):
        raise ConfigError(
            f"--set {shorten(override)!r}: {shorten(section)!r} is a value ({shorten(repr(found))}) and has no settings below it"
        )
    return found


def _position(entries: list[Any], text: str, override: str) -> int:
    if not text.isdigit() or int(text) >= len(entries):
        raise ConfigError(f"--set {shorten(override)!r}: expected an entry from 0 to {len(entries) - 1}, found {shorten(text)!r}")
    return int(text)


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {shorten(key)!r}; {describe_nearest_setting(where[-1], section_at(where[:-1]))}"
    if problem["type"] == "missing":
        return f"{key} is missing; set it in the file or with --set {key}=..."
    value = "" if isinstance(problem["input"], Mapping | RunConfig) else f" (it is {shorten(repr(problem['input']))})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}{value}" if key else message
