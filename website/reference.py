"""Reference pages in Markdown: every setting of `RunConfig` and every command of ``compass-ray``.

The settings come from the JSON Schema of the pydantic models, the commands from typer's own generator. Nothing is written here by
hand, so a page cannot differ from the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from compass_ray.config import RunConfig

Schema = Mapping[str, Any]

SOURCE = "pool.sources.N"
"""Name of a source of rows in the reference; N is its number in the list, from 0."""
SAME_AS_A_SOURCE = ("pool.guides", "pool.tests", f"{SOURCE}.extra_sources.N")
"""Settings that hold a source and therefore have the settings of `SOURCE`."""
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`", "null": "`null`"}


@dataclass(frozen=True)
class Setting:
    """One setting of the reference: dotted name, allowed values, default and meaning, as Markdown."""

    name: str
    values: str
    default: str
    meaning: str


@dataclass(frozen=True)
class SettingSection:
    """The settings of one section of a configuration, with its description."""

    name: str
    description: str
    settings: tuple[Setting, ...]


def setting_sections() -> list[SettingSection]:
    """All settings, by section: first those of the run itself, then one section for each stage, with its nested sections."""
    schema = RunConfig.model_json_schema()
    definitions: Schema = schema.get("$defs", {})
    return list(_walk("", schema, definitions, ()))


def setting_names() -> list[str]:
    """The names of all settings, in the order of the page."""
    return [setting.name for section in setting_sections() for setting in section.settings]


def settings_tables() -> str:
    """One table for each section of a configuration."""
    lines = []
    for section in setting_sections():
        lines += [f"## `{section.name}`" if section.name else "## Run", "", section.description, ""]
        lines += ["| setting | values | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f'| <a id="{each.name}"></a>`{each.name}` | {each.values} | {each.default} | {each.meaning} |'
            for each in section.settings
        ]
        lines += [""]
    return "\n".join(lines)


def command_sections() -> str:
    """One section for each command, by typer's generator."""
    import typer
    from typer.cli import get_docs_for_click

    from compass_ray import cli

    command: Any = typer.main.get_command(cli.app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), indent=1, name="compass-ray")


def reference_of(name: str, known: frozenset[str]) -> str | None:
    """The name under which the reference has a setting, or None.

    >>> known = frozenset({"select.budget", "pool.sources.N.path", "pool.sources.N.extra_sources.N"})
    >>> reference_of("select.budget", known), reference_of("pool.sources.0.path", known), reference_of("pool.tests.path", known)
    ('select.budget', 'pool.sources.N.path', 'pool.sources.N.path')
    >>> reference_of("sources.budget", known)
    """
    generic = re.sub(r"\.\d+(?=\.|$)", ".N", name)
    if generic in known:
        return generic
    for holder in SAME_AS_A_SOURCE:
        if generic.startswith(f"{holder}."):
            return reference_of(SOURCE + generic.removeprefix(holder), known)
    return None


def _walk(prefix: str, schema: Schema, definitions: Schema, parents: tuple[str, ...]) -> Iterator[SettingSection]:
    """The section at ``prefix``, then its nested ones."""
    settings, nested = [], []
    for key, field in schema.get("properties", {}).items():
        name = f"{prefix}.{key}".lstrip(".")
        setting = _setting(name, field, definitions, key in schema.get("required", ()))
        section = _section_of(field)
        listed = _section_of(_alternative(field).get("items", {}))
        if name in SAME_AS_A_SOURCE:
            settings.append(replace(setting, values=f"a source, as `{SOURCE}`"))
        elif section and section not in parents:
            nested.append((name, section))
            if "null" in _kinds(field):
                settings.append(replace(setting, values="settings below, or `null`", default=""))
        elif listed and listed not in parents:
            nested.append((f"{name}.N", listed))
            settings.append(replace(setting, values=f"a list, as `{name}.N`"))
        else:
            settings.append(setting)
    yield SettingSection(prefix, _text(schema.get("description", "")), tuple(settings))
    for name, section in nested:
        yield from _walk(name, definitions[section], definitions, (*parents, section))


def _setting(name: str, field: Schema, definitions: Schema, required: bool) -> Setting:
    default = "required" if required else f"`{_cell(_json(_default(field, definitions)))}`"
    return Setting(name, _values(field, definitions), default, _text(field.get("description", "")))


def _default(field: Schema, definitions: Schema) -> Any:
    """The default, without settings of a section that have defaults of their own. Only empty mappings are made by a factory."""
    default = field.get("default", {})
    section = _section_of(field) or _section_of(_alternative(field).get("items", {}))
    if section is None or default is None:
        return default
    fields = definitions[section]["properties"]
    entries = [
        {key: value for key, value in each.items() if key in fields and fields[key].get("default", {}) != value}
        for each in (default if isinstance(default, list) else [default])
    ]
    return entries if isinstance(default, list) else entries[0]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _values(field: Schema, definitions: Schema) -> str:
    """The allowed values of a field in words."""
    if "anyOf" in field:
        return ", or ".join(dict.fromkeys(_values(each, definitions) for each in field["anyOf"]))
    if "$ref" in field:
        definition = definitions[field["$ref"].rpartition("/")[2]]
        return "settings" if "properties" in definition else _values(definition, definitions)
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        items = field.get("prefixItems", [field.get("items", {})])
        return "a list of " + " and ".join(dict.fromkeys(_values(each, definitions) for each in items))
    if field.get("type") == "object":
        return "a mapping"
    bounds = [f"{words} {field[key]:g}" for key, words in _BOUNDS.items() if key in field]
    return " ".join([_TYPES.get(field.get("type", ""), "any"), *([", ".join(bounds)] if bounds else [])])


def _section_of(field: Schema) -> str | None:
    """The name of the definition that a field holds, if it is one section."""
    reference: str | None = _alternative(field).get("$ref")
    return None if reference is None else reference.rpartition("/")[2]


def _alternative(field: Schema) -> Schema:
    """The field, or its one alternative that is not null."""
    others = [each for each in field.get("anyOf", ()) if each.get("type") != "null"]
    return others[0] if len(others) == 1 else field


def _kinds(field: Schema) -> set[str]:
    return {each.get("type", "") for each in field.get("anyOf", ())}


def _text(docstring: str) -> str:
    """A docstring as one paragraph of Markdown."""
    return _cell(" ".join(docstring.split()).replace("``", "`"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
