"""Inputs of the baselines that COMPASS does not use: prompts of the pool, and prompts and embeddings of the guide set.

Key property: texts are read and counted once per process, and only if a method needs them. COMPASS, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.core.baselines.transfer_ranking import Corpus
from compass_ray.models.text_features import build_corpus, hashed_ngram_counts

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolTexts:
    """Prompt and language of every row, in the order of the pool table."""

    prompts: Sequence[str]
    languages: Sequence[str]

    @cached_property
    def counts(self) -> Any:
        """Hashed counts of words and word pairs: scipy CSR (n, 10000)."""
        return hashed_ngram_counts(self.prompts)

    @cached_property
    def corpora(self) -> Mapping[str, Corpus]:
        """Corpus statistics of each language, for the ranker of transfer languages."""
        codes = np.asarray(self.languages)
        return {str(code): self.corpus(np.flatnonzero(codes == code)) for code in np.unique(codes)}

    def corpus(self, positions: IntArray) -> Corpus:
        """Corpus statistics of the rows at ``positions``."""
        return build_corpus(self.prompts[i] for i in positions)


@dataclass(frozen=True)
class BaselineFeatures:
    """Guide set of a language and texts of the pool; each is read when a method needs it. Subjects are None if unknown."""

    guide_prompts: Callable[[], Sequence[str]]
    guide_vectors: Callable[[], npt.NDArray[np.float32]]
    texts: Callable[[], PoolTexts]
    guide_subjects: Callable[[], Sequence[str | None]] = tuple

    @classmethod
    def of(cls, run: RunDir, language: str) -> BaselineFeatures:
        """Features of one target language of a run."""
        guide = run.guide(language)
        return cls(
            guide_prompts=lambda: guide.read_table("guide.parquet", ["prompt"])["prompt"].to_pylist(),
            guide_vectors=run.guide_embeddings(language).read_guide_vectors,
            texts=partial(_texts, run.uri, run.pool.require().fingerprint),
            guide_subjects=lambda: guide.read_table("guide.parquet", ["subject"])["subject"].to_pylist(),
        )


@lru_cache(maxsize=1)
def _texts(uri: str, fingerprint: str) -> PoolTexts:
    """Texts of the pool of a run; the fingerprint invalidates the cache when the pool is recomputed."""
    table = RunDir(uri).pool.read_table("rows.parquet", ["prompt", "language"])
    return PoolTexts(table["prompt"].to_pylist(), table["language"].to_pylist())
