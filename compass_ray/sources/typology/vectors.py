"""Feature vectors of languages: from lang2vec if it is installed, otherwise from the built-in table.

Key property: vectors are of individual languages, never of macrolanguages (`swh`, not `swa`), because a vector of many
languages resembles all of them. A language without a vector in a group has zeros there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from compass_ray.core.array_checks import FloatArray
from compass_ray.core.baselines.language_similarity import cosine_matrix, mean_similarity
from compass_ray.core.baselines.transfer_ranking import DISTANCES
from compass_ray.sources.typology import builtin_features, uriel


@dataclass(frozen=True)
class LanguageVectors:
    """Feature groups of `codes`, each float64 (n, d_g); `source` names their origin."""

    source: str
    codes: tuple[str, ...]
    groups: Mapping[str, FloatArray]
    groups_by_distance: Mapping[str, tuple[str, ...]]
    """Groups whose concatenation gives each of `DISTANCES`; missing distances are unknown."""

    def similarity(self, code: str) -> FloatArray:
        """Mean cosine over groups float64[n] of one language to each of `codes`; NaN without vectors."""
        return np.asarray(mean_similarity(list(self.groups.values()))[self.codes.index(code)])

    def distances(self, code: str) -> FloatArray:
        """Columns of `DISTANCES`, float64 (n, 6), of one language to each of `codes`; NaN if unknown."""
        index = self.codes.index(code)
        return np.column_stack([self._distance(name)[index] for name in DISTANCES])

    def _distance(self, name: str) -> FloatArray:
        parts = [self.groups[group] for group in self.groups_by_distance.get(name, ())]
        if not parts:
            return np.full((len(self.codes), len(self.codes)), np.nan)
        return np.asarray(1.0 - cosine_matrix(np.column_stack(parts)))


def vectors_source() -> str:
    """Source of the vectors of `load_language_vectors`, with its version."""
    version = uriel.installed()
    return f"lang2vec {version}" if version else builtin_features.NAME


@lru_cache(maxsize=4)
def load_language_vectors(codes: tuple[str, ...]) -> LanguageVectors:
    """Vectors of languages by their pool code: Global-MMLU code, or ISO 639-3 for other languages.

    Raises:
        ConfigError: lang2vec is installed, but its data cannot be read.
    """
    if uriel.installed():
        return LanguageVectors(vectors_source(), codes, uriel.groups(codes), uriel.GROUPS_BY_DISTANCE)
    return LanguageVectors(vectors_source(), codes, builtin_features.groups(codes), builtin_features.GROUPS_BY_DISTANCE)
