"""Reference of all settings, derived from the sections: path, type, default, choices and description of each.

Key property: nothing is written twice. The description of a setting is the docstring below it, and the type says its limits.
A list of sections has the path of its first entry, as in ``pool.sources.0.path``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from compass_ray.config.base import ConfigError, ConfigSection
from compass_ray.config.config_keys import dotted_prefix, section_below
from compass_ray.config.run import RunConfig
from compass_ray.texts import shorten

_PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text", NoneType: "null"}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""Words for a limit by its attribute on pydantic's constraints."""
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_MOST_NAMED = 3


@dataclass(frozen=True)
class SettingInfo:
    """One setting, or one section."""

    key: str
    """Path of the setting, as ``--set`` takes it."""
    type: str
    """Type and limits in words."""
    description: str
    """What the setting does, on one line; code is in single backticks."""
    default: Any = None
    """The default as a JSON value; None for a section."""
    is_required: bool = False
    is_section: bool = False
    choices: tuple[str, ...] = ()
    former_name: str | None = None


def list_settings() -> tuple[SettingInfo, ...]:
    """Every section and setting, each section before its settings.

    >>> [each.key for each in list_settings()][:4]
    ['languages', 'seed', 'pool', 'pool.sources']
    """
    return tuple(_walk(RunConfig, ()))


def list_section(key: str) -> tuple[SettingInfo, ...]:
    """The settings and sections directly in a section, which is ``""`` for the whole configuration.

    Raises:
        ConfigError: there is no such section.

    >>> [each.key for each in list_section("select.transfer")]
    ['select.transfer.languages', 'select.transfer.rows', 'select.transfer.results']
    """
    _, model, path = _locate(key)
    if model is None:
        raise ConfigError(f"{key} is a setting and has no settings below it")
    return tuple(_describe(name, field, path) for name, field in model.model_fields.items())


def find_setting(key: str) -> SettingInfo:
    """The setting or section at a path. Former names count, and numbers of list entries may be left out.

    Raises:
        ConfigError: no such setting; the message gives the nearest one.

    >>> find_setting("drift.floor").key, find_setting("pool.sources.path").key
    ('drift.min_divergence', 'pool.sources.0.path')
    """
    found, _, _ = _locate(key)
    if found is None:
        raise ConfigError(f"no setting is given; the sections are {', '.join(RunConfig.model_fields)}")
    return found


def value_at(config: RunConfig, key: str) -> Any:
    """The value of a setting in a configuration, as a JSON value; None if a section or list above it is unset or empty.

    >>> value_at(RunConfig(languages=("sw",)), "pool.sources.0.path")
    'atlas'
    """
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        elif value is not None:
            value = value[part]
    return value


def _locate(key: str) -> tuple[SettingInfo | None, type[ConfigSection] | None, list[str]]:
    """The setting at a path, its section if it is one, and the path of what is below it. An empty path is the configuration."""
    model: type[ConfigSection] | None = RunConfig
    found: SettingInfo | None = None
    path: list[str] = []
    for part in (each for each in key.strip().split(".") if each and not each.isdigit()):
        name = model.present_name(part) if model else part
        if model is None or name not in model.model_fields:
            raise ConfigError(f"unknown key {shorten(key)!r}; {_suggest(part, model, found)}")
        found = _describe(name, model.model_fields[name], path)
        model = section_below(model, name)
        path += [name, "0"] if model and _is_list(found) else [name]
    return found, model, path


def _walk(
    model: type[ConfigSection], path: tuple[str, ...], above: tuple[type[ConfigSection], ...] = ()
) -> Iterator[SettingInfo]:
    for name, field in model.model_fields.items():
        found = _describe(name, field, path)
        yield found
        below = section_below(model, name)
        if below is not None and below not in above:
            yield from _walk(below, (*path, name, "0") if _is_list(found) else (*path, name), (*above, below))


def _describe(name: str, field: FieldInfo, path: Iterable[str]) -> SettingInfo:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    kind = describe_type(field.annotation, field.metadata)
    return SettingInfo(
        key=dotted_prefix(path) + name,
        type=kind,
        description=plain(field.description or ""),
        default=None if isinstance(default, ConfigSection) else _JSON.dump_python(default, mode="json"),
        is_required=field.is_required(),
        is_section="section" in kind,
        choices=tuple(dict.fromkeys(_choices(field.annotation))),
        former_name=field.serialization_alias,
    )


def plain(text: str) -> str:
    """A docstring on one line, with single backticks."""
    return " ".join(text.replace("``", "`").split())


def describe_type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Type and limits of an annotation in words. ``metadata`` are pydantic's constraints.

    >>> from compass_ray.config.base import Positive
    >>> describe_type(Positive | None)
    'whole number, at least 1, or null'
    >>> describe_type(tuple[Literal["a", "b"], ...])
    'list of: a, b'
    """
    origin, options = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(options[0], [*options[1:], *metadata])
    if origin in (Union, UnionType):
        return ", or ".join(describe_type(each, metadata) for each in options)
    if origin is Literal:
        return ", ".join(map(str, options)) if len(options) == 1 else f"one of {', '.join(map(str, options))}"
    if origin is tuple:
        return _describe_list(options, metadata)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of names to: {describe_type(options[1])}"
    if isinstance(annotation, type) and issubclass(annotation, ConfigSection):
        return "section"
    return _PLAIN.get(annotation, "value") + _describe_limits(metadata)


def _describe_list(options: Sequence[Any], metadata: Sequence[Any]) -> str:
    entry = describe_type(options[0]).removeprefix("one of ")
    if options[-1] is not Ellipsis:
        return f"list of {len(options)}: {entry}"
    is_filled = any(hasattr(each, "min_length") for each in _flatten(metadata))
    return f"{'non-empty list' if is_filled else 'list'} of: {entry}"


def _describe_limits(metadata: Sequence[Any]) -> str:
    constraints = list(_flatten(metadata))
    found = {word: f"{getattr(each, name):g}" for name, word in _LIMITS.items() for each in constraints if hasattr(each, name)}
    if {"at least", "at most"} <= found.keys():
        return f" from {found['at least']} to {found['at most']}"
    listed = " and ".join(f"{word} {limit}" for word, limit in found.items())
    return f", {listed}" if listed else ""


def _flatten(metadata: Iterable[Any]) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, FieldInfo):
            yield from each.metadata
        else:
            yield each


def _choices(annotation: Any) -> Iterator[str]:
    """The values of every ``Literal`` within an annotation."""
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif not (isinstance(annotation, type) and issubclass(annotation, ConfigSection)):
        for each in get_args(annotation):
            yield from _choices(each)


def _is_list(found: SettingInfo) -> bool:
    return "list of" in found.type


def _suggest(part: str, model: type[ConfigSection] | None, above: SettingInfo | None) -> str:
    """The nearest setting of the section, or of all sections if none is given."""
    if model is None:
        return f"{above.key} has no settings below it" if above else ""
    if above is None:
        return _suggest_anywhere(part)
    names = {**{name: name for name in model.model_fields}, **model.former_names()}
    close = difflib.get_close_matches(part, names, n=1, cutoff=0.5)
    section = above.key + (".0." if _is_list(above) else ".")
    return f"did you mean {section + names[close[0]]!r}?" if close else f"{above.key} has {', '.join(model.model_fields)}"


def _suggest_anywhere(part: str) -> str:
    """The sections and settings whose own name is nearest."""
    keys: dict[str, list[str]] = {}
    for each in list_settings():
        keys.setdefault(each.key.rpartition(".")[2], []).append(each.key)
    close = difflib.get_close_matches(part, keys, n=1, cutoff=0.6)
    named = " or ".join(map(repr, keys[close[0]][:_MOST_NAMED])) if close else ""
    return f"did you mean {named}?" if close else f"the sections are {', '.join(RunConfig.model_fields)}"
