"""Whether variants are different runs: in their names, on any disk, and in what their results depend on.

Key property: configurations are compared as they were resolved, so two ways of writing one value do not count as two
variants. It is about settings alone; whether artefacts are equal is asked of their fingerprints (`sharing`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from compass_ray.config import ConfigError, RunConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]*")
_MAX_NAME_LENGTH = 120
_RESERVED_NAMES = ("experiment.json", "index.html", "pins.json", "run.json")
_REMEDY = "give each value once, or name them in a file, under experiment.variants"


def check_names(names: Sequence[str]) -> None:
    """Each name can be a folder, and no two are the same one.

    Raises:
        ConfigError: a name that cannot, or names that differ in case at most.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_LENGTH or name.casefold() in _RESERVED_NAMES:
            raise ConfigError(
                f"{name!r} is not a valid variant name: expected 1 to {_MAX_NAME_LENGTH} letters, digits and any of . _ = , + - "
                f"that begin with a letter or digit; name it in a file, under experiment.variants"
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ConfigError(f"{other!r} and {name!r} differ in case alone, and some disks take them for one; {_REMEDY}")
    for name in seen.values():
        if (times := names.count(name)) > 1:
            raise ConfigError(f"{times} variants have the name {name!r}; {_REMEDY}")


def check_configurations(configs: Mapping[str, RunConfig]) -> None:
    """All variants are computed in one place, and each can have results of its own.

    Args:
        configs: by the variant's name, its whole configuration.

    Raises:
        ConfigError: two variants that differ in ``resources``, or in nothing that a result depends on.
    """
    made = {name: result_settings(config) for name, config in configs.items()}
    for (one, a), (other, b) in itertools.combinations(configs.items(), 2):
        if a == b:
            raise ConfigError(f"{one!r} and {other!r} are one configuration and would count as two; leave one of them out")
        if a.resources != b.resources:
            raise ConfigError(
                f"{one!r} and {other!r} differ in {_list_differences(a, b, 'resources')}: resources do not affect results, "
                f"and all variants are computed in one place; set it for all with --set"
            )
        if made[one] == made[other]:
            raise ConfigError(
                f"{one!r} and {other!r} differ only in {_list_differences(a, b)}, which does not affect results. "
                f"Remove one, or set it for all variants with --set"
            )


def result_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that rows, models and scores of a run depend on: all that enters a fingerprint but that of the page."""
    return {
        **config.model_dump(exclude={"resources", "drift", "identifier", "train", "full", "evaluate", "serve", "update"}),
        "train": config.train.identity(),
        "full": config.full.learning_rate,
        "evaluate": config.evaluate.model_dump(include={"scoring", "items_per_language"}),
        "serve": config.serve.method,
        "update": config.update.anchors,
    }


def _list_differences(a: RunConfig, b: RunConfig, section: str = "") -> str:
    mine, others = _flatten(a.model_dump()), _flatten(b.model_dump())
    keys = sorted(key for key in mine.keys() | others.keys() if mine.get(key) != others.get(key))
    return ", ".join(key for key in keys if key.startswith(section))


def _flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat
