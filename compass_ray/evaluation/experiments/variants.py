"""Variants of an experiment: a grid and a list of overrides become named, complete configurations.

The name of a variant depends only on its own settings, so values can be added later and existing variants are found
again. All configurations are checked before any work (`validate`). This module reads no run and starts nothing.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import Field, ValidationError

from compass_ray.config import ConfigError, ConfigSection, RunConfig, resolve_config
from compass_ray.config.yaml_loader import read_yaml
from compass_ray.evaluation.experiments.validate import check_configurations, check_names

SECTION = "experiment"
"""Key of the section of a YAML file that defines the variants. The rest of the file is common to all variants."""
SEED = "seed"
BASE = "base"
"""Name of the group whose variants change nothing except the seed."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")


class ExperimentConfig(ConfigSection):
    """The ``experiment`` section of a file: every named variant is combined with every combination of the varied values."""

    vary: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    """The values of each setting, by key."""
    variants: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """The changes of each named variant, as ``key=value``."""
    against: str | None = None
    """Name of the reference variant, or a prefix of it. Default: the first variant."""


@dataclass(frozen=True)
class Variant:
    """One variant: its name, its changes, and the resulting configuration."""

    name: str
    settings: tuple[str, ...]
    """The changes as ``key=value``, in the order of application."""
    group: str
    """The name without the seed. Variants that differ only in the seed have the same group."""
    config: RunConfig


@dataclass(frozen=True)
class Experiment:
    """Distinct variants, and the name of the reference variant (``against``)."""

    variants: tuple[Variant, ...]
    against: str

    def reference_for(self, variant: Variant) -> Variant:
        """Return the variant to compare with: the one in the group of ``against`` with the same seed, or ``against`` itself.

        If only the seed varies, all variants are compared with ``against``.
        """
        chosen = next(v for v in self.variants if v.name == self.against)
        if all(v.group == chosen.group for v in self.variants):
            return chosen
        same = (v for v in self.variants if v.group == chosen.group and v.config.seed == variant.config.seed)
        return next(same, chosen)


def read_experiment(
    tree: Mapping[str, Any],
    vary: Iterable[str] = (),
    *,
    against: str | None = None,
    overrides: Sequence[str] = (),
    languages: Sequence[str] | None = None,
) -> Experiment:
    """Build the experiment that a settings tree and a command line define together.

    Args:
        tree: settings common to all variants; its ``experiment`` section defines the variants.
        vary: grids as ``key=value,value``, in addition to those of the tree.
        against: name of the reference variant, or a prefix of it; that of the tree if None.
        overrides: changes to all variants, as ``key=value``.
        languages: target languages of all variants; those of the tree if None.

    Raises:
        ConfigError: nothing varies, a key or value is invalid, a name is invalid, or two variants are the same run.
    """
    base = dict(tree)
    section = _section(base.pop(SECTION, None))
    grid = _merge_grids([*((key, list(values)) for key, values in section.vary.items()), *(_parse_grid(text) for text in vary)])
    variants = [
        _variant(base, named, changes, chosen, overrides, languages)
        for named, changes in (section.variants or {"": ()}).items()
        for chosen in (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))
    ]
    if not grid and not section.variants:
        raise ConfigError(f"nothing varies; give --vary KEY=VALUE,VALUE or a file with a section {SECTION!r}")
    check_names([variant.name for variant in variants])
    check_configurations({variant.name: variant.config for variant in variants})
    return Experiment(tuple(variants), _resolve_reference(variants, against or section.against))


def _section(tree: Any) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(tree or {})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in (SECTION, *problem["loc"]))
        raise ConfigError(
            f"{key}: {problem['msg']} (it is {problem['input']!r}); expected vary: {{KEY: [VALUE, ...]}}, "
            f"variants: {{NAME: [KEY=VALUE, ...]}} and against: NAME"
        ) from None


def _parse_grid(text: str) -> tuple[str, list[Any]]:
    """Parse ``key=value,value``; a value may be a YAML list."""
    key, equals, listed = text.partition("=")
    if not (key.strip() and equals and listed.strip()):
        raise ConfigError(f"--vary {text!r}: expected KEY=VALUE,VALUE, for example select.budget=0.4,0.8")
    try:
        return key.strip(), read_yaml(f"[{listed}]")
    except yaml.YAMLError as error:
        raise ConfigError(f"--vary {text[:300]!r}: these are not YAML values ({str(error)[:300]})") from None
    except ConfigError as error:
        raise ConfigError(f"--vary {text[:300]!r}, {error}") from None


def _merge_grids(grids: list[tuple[str, list[Any]]]) -> dict[str, list[Any]]:
    joined: dict[str, list[Any]] = {}
    for key, values in grids:
        if key in joined:
            raise ConfigError(f"{key} is varied twice; name it once, with all its values")
        if not values:
            raise ConfigError(f"{key} is varied but has no values; give at least one")
        joined[key] = values
    return joined


def _variant(
    base: Mapping[str, Any],
    named: str,
    changes: tuple[str, ...],
    chosen: Mapping[str, Any],
    overrides: Sequence[str],
    languages: Sequence[str] | None,
) -> Variant:
    words = [(key, f"{key}={_path_safe(value)}") for key, value in chosen.items()]
    name = ",".join([*([named] if named else []), *(word for _, word in words)])
    settings = (*changes, *(f"{key}={_override_text(value)}" for key, value in chosen.items()))
    try:
        config = resolve_config(base, [*overrides, *settings], languages)
    except ConfigError as error:
        raise ConfigError(f"variant {name!r}: {error}") from None
    group = ",".join([*([named] if named else []), *(word for key, word in words if key != SEED)])
    return Variant(name, settings, group or BASE, config)


def _override_text(value: Any) -> str:
    """Format a value for an override."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _path_safe(value: Any) -> str:
    """Format a value so that it is safe in a path on any disk and object store.

    >>> _path_safe(0.4), _path_safe(None), _path_safe(["target", "compass"]), _path_safe("microsoft/Phi-4-mini-instruct")
    ('0.4', 'null', 'target,compass', 'microsoft-Phi-4-mini-instruct')
    """
    listed = ",".join(_override_text(each) for each in value) if isinstance(value, list) else _override_text(value)
    return _UNSAFE.sub("-", listed).strip("-")


def _resolve_reference(variants: Sequence[Variant], name: str | None) -> str:
    if name is None:
        return variants[0].name
    matches = [v.name for v in variants if name in (v.name, v.group) or v.name.startswith(f"{name},")]
    if not matches:
        raise ConfigError(f"--against {name!r} matches no variant; choose one of: {'; '.join(v.name for v in variants)}")
    return matches[0]
