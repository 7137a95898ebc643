"""Paths of settings, such as ``select.budget`` and ``pool.sources.0.path``: sections, types and nearest names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from compass_ray.config.base import ConfigSection
from compass_ray.config.data import SourceConfig
from compass_ray.config.run import RunConfig


def section_below(model: type[BaseModel], field: str) -> type[ConfigSection] | None:
    """The section, or the sections of a list, that a setting holds; None for a plain value."""
    found = model.model_fields.get(field)
    candidates = [found.annotation, *getattr(found.annotation, "__args__", ())] if found else []
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, ConfigSection)), None)


def annotation_at(path: Sequence[str]) -> Any:
    """The type of the setting at a path; None for an unknown setting."""
    found: Any = RunConfig
    for part in path:
        found = _annotation_below(found, part)
    return found


def _annotation_below(annotation: Any, part: str) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(part)
        return field.annotation if field else None
    origin, options = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return options[1]
    if origin is tuple:
        return options[0] if part.isdigit() else None
    return next((below for each in options if (below := _annotation_below(each, part)) is not None), None)


def present_path(path: list[str]) -> list[str]:
    """A path of settings with former names replaced by present ones, each with a warning."""
    model: type[ConfigSection] | None = RunConfig
    present: list[str] = []
    for part in path:
        if model is not None and not part.isdigit():
            [part] = model.with_present_names({part: None}, prefix=dotted_prefix(present))
            model = section_below(model, part)
        present.append(part)
    return present


def section_at(path: list[str]) -> type[ConfigSection]:
    """The section at a path of settings."""
    model: type[ConfigSection] = RunConfig
    for part in path:
        if not part.isdigit():
            model = section_below(model, part) or SourceConfig
    return model


def describe_nearest_setting(name: str, model: type[ConfigSection]) -> str:
    """The setting closest to a name, by present and former names; otherwise all present names."""
    former = model.former_names()
    close = difflib.get_close_matches(name, [*model.model_fields, *former], n=1, cutoff=0.5)
    if close and close[0] in former:
        return f"did you mean {former[close[0]]!r} (formerly {close[0]!r})?"
    return describe_nearest(name, close or model.model_fields)


def describe_nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to a name; otherwise all known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def dotted_prefix(path: Iterable[str]) -> str:
    """Path of a section before the name of a setting: empty, or with a dot at its end."""
    return "".join(f"{part}." for part in path)
