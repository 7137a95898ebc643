"""URIEL's features of languages, read from the data that the lang2vec package carries.

Key property: the package is never imported. Its version 1.1.2 needs `pkg_resources`, which setuptools no longer has; its
data are plain npz files beside it. Features that it predicts by nearest neighbours stand in for what nobody described.
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
"""Group -> file and beginning of its features' names."""

GROUPS_BY_DISTANCE: Mapping[str, tuple[str, ...]] = {
    "geographic": ("geo",),
    "genetic": ("fam",),
    "inventory": ("inventory_knn",),
    "syntactic": ("syntax_knn",),
    "phonological": ("phonology_knn",),
    "featural": ("syntax_knn", "phonology_knn", "inventory_knn"),
}


def installed() -> str | None:
    """The version of lang2vec that is installed, None where it is not."""
    try:
        return importlib.metadata.version("lang2vec")
    except importlib.metadata.PackageNotFoundError:
        return None


def groups(codes: tuple[str, ...]) -> dict[str, FloatArray]:
    """Each group's vectors float64 (n, d), zeros for a language that lang2vec has not.

    Raises:
        ConfigError: the package's data are not as version 1.1.2 has them.
    """
    folder, iso = _folder(), [LANGUAGES[code].aya_code if code in LANGUAGES else code for code in codes]
    try:
        files = {name: _rows(folder / name, iso) for name in dict.fromkeys(file for file, _ in _GROUPS.values())}
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"lang2vec {installed()} is installed, but its data cannot be read ({error}); "
            f"install lang2vec==1.1.2, or uninstall it to use the table that compass-ray carries"
        ) from None
    return {group: _columns(*files[file], prefix) for group, (file, prefix) in _GROUPS.items()}


def _folder() -> Path:
    # Not by importlib: the package also puts a script lang2vec.py beside the commands, where a command finds it first.
    return Path(str(importlib.metadata.distribution("lang2vec").locate_file("lang2vec/data")))


def _rows(file: Path, iso: list[str]) -> tuple[list[str], FloatArray]:
    """Names of a file's features, and their values (n, d) for some languages."""
    with np.load(file, allow_pickle=False) as data:
        place = {code: i for i, code in enumerate(data["langs"].tolist())}
        names, values = data["feats"].tolist(), data["data"]
    known = [i for i, code in enumerate(iso) if code in place]
    found = np.zeros((len(iso), len(names)))
    found[known] = values[[place[iso[i]] for i in known], :, 0]
    return names, np.maximum(found, 0.0)


def _columns(names: list[str], values: FloatArray, prefix: str) -> FloatArray:
    """The columns of one group that are not zero for all: zeros change no cosine."""
    kept = np.array([name.startswith(prefix) for name in names]) & values.any(axis=0)
    return np.asarray(values[:, kept])
