"""Check that variants are different runs: in their names, on any disk, and in the settings that affect results.

Resolved configurations are compared, so two spellings of one value do not count as two variants. `artifact_reuse`
compares artifacts, by their fingerprints.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from compass_ray.config import ConfigError, RunConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]*")
_MAX_NAME_LENGTH = 120
_RESERVED_NAMES = ("experiment.json", "index.html", "pins.json", "run.json", "suite.json")
_REMEDY = "give each value once, or name them in a file, under experiment.variants"


def check_names(names: Sequence[str]) -> None:
    """Check that each name is a valid folder name, and that no two name the same folder.

    Raises:
        ConfigError: an invalid name, or names that are equal or differ only in case.
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
            raise ConfigError(f"{other!r} and {name!r} differ only in case and are one folder on some disks; {_REMEDY}")
    for name in seen.values():
        if (times := names.count(name)) > 1:
            raise ConfigError(f"{times} variants have the name {name!r}; {_REMEDY}")


def check_configurations(configs: Mapping[str, RunConfig]) -> None:
    """Check that all variants have the same ``resources``, and that each can have different results.

    Args:
        configs: the resolved configuration of each variant, by name.

    Raises:
        ConfigError: two variants differ in ``resources``, or only in settings that do not affect results.
    """
    effective = {name: result_settings(config) for name, config in configs.items()}
    for (one, a), (other, b) in itertools.combinations(configs.items(), 2):
        if a == b:
            raise ConfigError(f"{one!r} and {other!r} are the same configuration; remove one of them")
        if a.resources != b.resources:
            raise ConfigError(
                f"{one!r} and {other!r} differ in {_list_differences(a, b, 'resources')}: resources do not affect results, "
                f"and all variants run in one Ray session; set it for all with --set"
            )
        if effective[one] == effective[other]:
            raise ConfigError(
                f"{one!r} and {other!r} differ only in {_list_differences(a, b)}, which does not affect results. "
                f"Remove one, or set it for all variants with --set"
            )


def result_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that affect rows, models and scores: all settings in a fingerprint except that of the report."""
    return {
        **config.model_dump(exclude={"resources", "drift", "identifier", "train", "full", "evaluate", "serve", "update"}),
        "train": config.train.identity(),
        "full": config.full.learning_rate,
        "evaluate": config.evaluate.model_dump(include={"scoring", "items_per_language"}),
        "serve": config.serve.method,
        "update": config.update.anchors,
    }


def _list_differences(a: RunConfig, b: RunConfig, section: str = "") -> str:
    left, right = _flatten(a.model_dump()), _flatten(b.model_dump())
    keys = sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
    return ", ".join(key for key in keys if key.startswith(section))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
