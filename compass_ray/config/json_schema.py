"""JSON Schema of a settings file, for editors: completion, descriptions and errors while a file is written.

Key property: it is derived from the sections. It accepts what the loader reads: ``extends``, sections that change only some
settings of a preset, and former names, which are marked as deprecated. Rules between settings are left to the loader.
"""

from __future__ import annotations

import json
from typing import Any

from compass_ray.config.base import ConfigSection
from compass_ray.config.config_keys import section_below
from compass_ray.config.loader import list_presets
from compass_ray.config.reference import plain
from compass_ray.config.run import RunConfig
from compass_ray.languages import LANGUAGES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SOURCE = "SourceConfig"
_EXPERIMENT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "description": "Variants for `compass-ray experiment`.",
    "properties": {
        "vary": {"type": "object", "additionalProperties": {"type": "array"}, "description": "Values of each setting, by key."},
        "variants": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
            "description": "Changes of each named variant, as `key=value`.",
        },
        "against": {"type": ["string", "null"], "description": "Variant to compare the others with."},
    },
}
"""The section that `compass-ray experiment` reads."""


def build_json_schema() -> dict[str, Any]:
    """The schema of a settings file, in the dialect 2020-12."""
    schema = RunConfig.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    for name, model in _sections(RunConfig).items():
        _describe(schema if model is RunConfig else definitions[name], model)
    definitions[_SOURCE].pop("required")  # a guide or test set may change a preset's
    sources = definitions["PoolConfig"]["properties"]["sources"]
    sources["items"] = {**sources["items"], "required": ["path"]}
    schema["properties"]["languages"]["items"]["enum"] = list(LANGUAGES)
    schema["properties"] = {
        "extends": {"enum": list(list_presets()), "description": "Preset that this file changes. Without it, defaults apply."},
        **schema["properties"],
        "experiment": _EXPERIMENT,
    }
    del schema["required"]
    del schema["$defs"]
    choices = [{"required": ["extends"]}, {"required": ["languages"]}]
    return {"$schema": DIALECT, **schema, "title": "Settings of compass_ray", "anyOf": choices, "$defs": definitions}


def format_json_schema() -> str:
    """The text of the schema's file."""
    return json.dumps(build_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _sections(model: type[ConfigSection]) -> dict[str, type[ConfigSection]]:
    """A section and all sections below it, by class name."""
    found: dict[str, type[ConfigSection]] = {}
    waiting = [model]
    while waiting:
        each = waiting.pop()
        if each.__name__ not in found:
            found[each.__name__] = each
            waiting += [below for name in each.model_fields if (below := section_below(each, name))]
    return found


def _describe(schema: dict[str, Any], model: type[ConfigSection]) -> None:
    """Plain descriptions, no titles, no defaults of whole sections, and former names and values."""
    schema["description"] = plain((model.__doc__ or "").split("\n\n")[0])
    properties: dict[str, Any] = schema["properties"]
    for name, each in properties.items():
        each.pop("title", None)
        each["description"] = plain(each["description"])
        if section_below(model, name):
            each.pop("default", None)
        if former := model.former_values.get(name):
            each["anyOf"] = [{"enum": each.pop("enum")}, {"enum": list(former), "deprecated": True}]
    for former_name, name in model.former_names().items():
        properties[former_name] = {
            **properties[name],
            "deprecated": True,
            "description": f"Former name of {name}.",
        }
    schema.pop("title", None)
