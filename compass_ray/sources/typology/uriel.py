"""URIEL's features of languages, read from the data that the lang2vec package carries.

Key property: the package is never imported. Its version 1.1.2 needs `pkg_resources`, which setuptools no longer has; its
data are plain npz files beside it. Features predicted by nearest neighbours replace missing descriptions.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compass_ray.config import ConfigError
from compass_ray.core.array_checks import FloatArray
from compass_ray.languages import LANGUAGES

_GROUPS: Mapping[str, tuple[str, str]] = {
    "syntax_knn": ("feature_predictions.npz", "S_"),
    "phonology_knn": ("feature_predictions.npz", "P_"),
    "inventory_knn": ("feature_predictions.npz", "INV_"),
    "fam": ("family_features.npz", "F_"),
    "geo": ("geocoord_features.npz", "GC_"),
}
"""Group -> file and prefix of its feature names."""

GROUPS_BY_DISTANCE: Mapping[str, tuple[str, ...]] = {
    "geographic": ("geo",),
    "genetic": ("fam",),
    "inventory": ("inventory_knn",),
    "syntactic": ("syntax_knn",),
    "phonological": ("phonology_knn",),
    "featural": ("syntax_knn", "phonology_knn", "inventory_knn"),
}


def installed() -> str | None:
    """Installed version of lang2vec; None if it is not installed."""
    try:
        return importlib.metadata.version("lang2vec")
    except importlib.metadata.PackageNotFoundError:
        return None


def groups(codes: tuple[str, ...]) -> dict[str, FloatArray]:
    """Vectors float64 (n, d) of each group; zeros for a language that lang2vec lacks.

    Raises:
        ConfigError: the data do not match version 1.1.2.
    """
    folder, iso = _folder(), [LANGUAGES[code].aya_code if code in LANGUAGES else code for code in codes]
    try:
        files = {name: _rows(folder / name, iso) for name in dict.fromkeys(file for file, _ in _GROUPS.values())}
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"lang2vec {installed()} is installed, but its data cannot be read ({error}); "
            f"install lang2vec==1.1.2, or uninstall it to use the built-in table"
        ) from None
    return {group: _columns(*files[file], prefix) for group, (file, prefix) in _GROUPS.items()}


def _folder() -> Path:
    # Not by importlib: the package also puts a script lang2vec.py beside the commands, where a command finds it first.
    return Path(str(importlib.metadata.distribution("lang2vec").locate_file("lang2vec/data")))


def _rows(file: Path, iso: list[str]) -> tuple[list[str], FloatArray]:
    """Feature names of a file, and their values (n, d) for the given languages."""
    with np.load(file, allow_pickle=False) as data:
        index = {code: i for i, code in enumerate(data["langs"].tolist())}
        names, values = data["feats"].tolist(), data["data"]
    known = [i for i, code in enumerate(iso) if code in index]
    found = np.zeros((len(iso), len(names)))
    found[known] = values[[index[iso[i]] for i in known], :, 0]
    return names, np.maximum(found, 0.0)


def _columns(names: list[str], values: FloatArray, prefix: str) -> FloatArray:
    """Columns of one group that are not all zero; zero columns change no cosine."""
    kept = np.array([name.startswith(prefix) for name in names]) & values.any(axis=0)
    return np.asarray(values[:, kept])
