"""Built-in fallback for lang2vec: one-hot family and branch, script, and geography of a language.

Key property: it is derived from the language list and CLDR, so it needs no other package. It covers only the 49 languages
of `compass_ray.languages`, without grammar or phonology.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compass_ray.core.array_checks import FloatArray
from compass_ray.languages import LANGUAGES
from compass_ray.sources.atlas.geography import SUBREGIONS

NAME = "compass_ray language table"
GROUPS_BY_DISTANCE: Mapping[str, tuple[str, ...]] = {"geographic": ("geography",), "genetic": ("family",)}

_REGIONS: Mapping[str, tuple[str, str]] = {
    territory: (part, region)
    for region, parts in {**SUBREGIONS}.items()
    for part, members in parts.items()
    for territory in members.split()
} | {"IL": ("145", "asia"), "MW": ("014", "africa")}
"""Territory -> M49 sub-region and region; the atlas lacks two of the home territories."""


def groups(codes: tuple[str, ...]) -> dict[str, FloatArray]:
    """Vectors float64 (n, d) of each group; zeros for an unknown language."""
    known = [LANGUAGES.get(code) for code in codes]
    return {
        "family": _one_hot([(each.family, f"{each.family}/{each.branch}") if each else () for each in known]),
        "script": _one_hot([(each.script,) if each else () for each in known]),
        "geography": _one_hot([_regions(each.code) if each else () for each in known]),
    }


def _regions(code: str) -> tuple[str, ...]:
    """Home territory of a language by CLDR's likely subtags, and its regions."""
    from babel.core import get_global

    territory = get_global("likely_subtags")[code].split("_")[-1]
    return (territory, *_REGIONS[territory])


def _one_hot(labels: Sequence[tuple[str, ...]]) -> FloatArray:
    column = {label: i for i, label in enumerate(sorted({label for row in labels for label in row}))}
    found = np.zeros((len(labels), len(column)))
    for i, row in enumerate(labels):
        found[i, [column[label] for label in row]] = 1.0
    return found
