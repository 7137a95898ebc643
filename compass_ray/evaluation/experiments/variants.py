"""What an experiment varies: from a grid and a list of overrides to named variants, each a whole configuration.

Key property: a variant's name follows from its own settings alone, so more values can be added later and what stands is
found again. All configurations are checked, and that they differ (`distinct`), before any work. It reads no run and
starts nothing.
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
from compass_ray.evaluation.experiments.validate import check_configurations, check_names

SECTION = "experiment"
"""Key of a YAML file under which it says what is varied; the rest of the file is what all variants start from."""
SEED = "seed"
BASE = "base"
"""Group of variants that differ by seed alone from what all start from."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")


class ExperimentConfig(ConfigSection):
    """The ``experiment`` section of a file: each of the variants under each combination of the values varied."""

    vary: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values by key."""
    variants: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """By name, what to change, each as ``key=value``."""
    against: str | None = None
    """The variant that the others are compared with, by its name or how that begins; the first one if unset."""


@dataclass(frozen=True)
class Variant:
    """One variant: its name, what it changes, and the configuration that this makes."""

    name: str
    settings: tuple[str, ...]
    """Each as ``key=value``, in the order in which they are applied."""
    group: str
    """Its name without the seed: what it shares with those that differ from it by seed alone."""
    config: RunConfig


@dataclass(frozen=True)
class Experiment:
    """Variants, each once, and which of them the others are compared with."""

    variants: tuple[Variant, ...]
    against: str

    def reference_for(self, variant: Variant) -> Variant:
        """What a variant is compared with: ``against``, or of its group the one with the same seed, where there is one.

        Where nothing but the seed varies, all are compared with the one.
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
    """What a file's tree of settings and a command line ask for together.

    Args:
        tree: settings that all variants start from; under ``experiment`` what is varied.
        vary: grids as ``key=value,value``, beside those of the tree.
        against: name of the variant to compare with, or how it begins; that of the tree if None.
        overrides: changes to all variants, as ``key=value``.
        languages: target languages of all variants, those of the tree if None.

    Raises:
        ConfigError: nothing is varied, a key or value that no configuration takes, names that are not names, or variants that
            are no different runs.
    """
    base = dict(tree)
    section = _section(base.pop(SECTION, None))
    grid = _merge_grids([*((key, list(values)) for key, values in section.vary.items()), *(_parse_grid(text) for text in vary)])
    found = [
        _variant(base, named, changes, chosen, overrides, languages)
        for named, changes in (section.variants or {"": ()}).items()
        for chosen in (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))
    ]
    if not grid and not section.variants:
        raise ConfigError(f"nothing varies; give --vary select.budget=0.4,0.8, or a file with a section {SECTION!r}")
    check_names([variant.name for variant in found])
    check_configurations({variant.name: variant.config for variant in found})
    return Experiment(tuple(found), _resolve_reference(found, against or section.against))


def _section(tree: Any) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(tree or {})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in (SECTION, *problem["loc"]))
        raise ConfigError(
            f"{where}: {problem['msg']} (it is {problem['input']!r}); expected vary: {{KEY: [VALUE, ...]}}, "
            f"variants: {{NAME: [KEY=VALUE, ...]}} and against: NAME"
        ) from None


def _parse_grid(text: str) -> tuple[str, list[Any]]:
    """A grid of the command line: ``key=value,value``, where a value may be a YAML list."""
    key, equals, listed = text.partition("=")
    if not (key.strip() and equals and listed.strip()):
        raise ConfigError(f"--vary {text!r}: expected KEY=VALUE,VALUE, for example select.budget=0.4,0.8")
    try:
        return key.strip(), yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError as error:
        raise ConfigError(f"--vary {text!r}: {listed!r} are not YAML values ({error})") from None


def _merge_grids(grids: list[tuple[str, list[Any]]]) -> dict[str, list[Any]]:
    joined: dict[str, list[Any]] = {}
    for key, values in grids:
        if key in joined:
            raise ConfigError(f"{key} is varied twice; name it once, with all its values")
        if not values:
            raise ConfigError(f"{key} is varied over no value; give at least one")
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
    """A value as an override has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _path_safe(value: Any) -> str:
    """A value as a part of a path on any disk and object store.

    >>> _path_safe(0.4), _path_safe(None), _path_safe(["target", "compass"]), _path_safe("microsoft/Phi-4-mini-instruct")
    ('0.4', 'null', 'target,compass', 'microsoft-Phi-4-mini-instruct')
    """
    listed = ",".join(_override_text(each) for each in value) if isinstance(value, list) else _override_text(value)
    return _UNSAFE.sub("-", listed).strip("-")


def _resolve_reference(variants: Sequence[Variant], asked: str | None) -> str:
    if asked is None:
        return variants[0].name
    found = [v.name for v in variants if asked in (v.name, v.group) or v.name.startswith(f"{asked},")]
    if not found:
        raise ConfigError(f"--against {asked!r} is none of the variants: {'; '.join(v.name for v in variants)}")
    return found[0]
