"""A small stand-in for lang2vec: family and branch, script, and place of a language, each one-hot.

Key property: made from our list of languages and from CLDR, so it is there without another package. It knows only the
49 languages of `compass_ray.languages`, and nothing of grammar or sounds.
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
"""Territory -> its M49 sub-region and region; the atlas asks about all but two of the home territories."""


def groups(codes: tuple[str, ...]) -> dict[str, FloatArray]:
    """Each group's vectors float64 (n, d), zeros for a language that is not in our list."""
    known = [LANGUAGES.get(code) for code in codes]
    return {
        "family": _one_hot([(each.family, f"{each.family}/{each.branch}") if each else () for each in known]),
        "script": _one_hot([(each.script,) if each else () for each in known]),
        "geography": _one_hot([_regions(each.code) if each else () for each in known]),
    }


def _regions(code: str) -> tuple[str, ...]:
    """The territory where a language is most at home by CLDR's likely subtags, and the regions around it."""
    from babel.core import get_global

    territory = get_global("likely_subtags")[code].split("_")[-1]
    return (territory, *_REGIONS[territory])


def _one_hot(labels: Sequence[tuple[str, ...]]) -> FloatArray:
    column = {label: i for i, label in enumerate(sorted({label for row in labels for label in row}))}
    found = np.zeros((len(labels), len(column)))
    for i, row in enumerate(labels):
        found[i, [column[label] for label in row]] = 1.0
    return found
