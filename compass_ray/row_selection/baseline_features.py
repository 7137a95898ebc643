"""What the baselines read that COMPASS does not: prompts of the pool, and the guide set's prompts and embeddings.

Key property: texts are read and counted once a process, however many languages it selects for, and only where a method
asks for them. COMPASS, section 4.3.
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
    """Prompt and language of every row, in the order of the pool's own table."""

    prompts: Sequence[str]
    languages: Sequence[str]

    @cached_property
    def counts(self) -> Any:
        """Hashed counts of words and pairs of words: scipy CSR (n, 10000)."""
        return hashed_ngram_counts(self.prompts)

    @cached_property
    def corpora(self) -> Mapping[str, Corpus]:
        """What a ranker of transfer languages looks at, by language, of all its rows."""
        spoken = np.asarray(self.languages)
        return {str(code): self.corpus(np.flatnonzero(spoken == code)) for code in np.unique(spoken)}

    def corpus(self, positions: IntArray) -> Corpus:
        """The same of some rows."""
        return build_corpus(self.prompts[i] for i in positions)


@dataclass(frozen=True)
class BaselineFeatures:
    """A language's guide set and the pool's texts; each is read when a method asks for it."""

    guide_prompts: Callable[[], Sequence[str]]
    guide_vectors: Callable[[], npt.NDArray[np.float32]]
    texts: Callable[[], PoolTexts]

    @classmethod
    def of(cls, run: RunDir, language: str) -> BaselineFeatures:
        """The material of a run for one target language."""
        guide = run.guide(language)
        return cls(
            guide_prompts=lambda: guide.read_table("guide.parquet", ["prompt"])["prompt"].to_pylist(),
            guide_vectors=run.guide_embeddings(language).read_embeddings,
            texts=partial(_texts, run.uri, run.pool.require().fingerprint),
        )


@lru_cache(maxsize=1)
def _texts(uri: str, fingerprint: str) -> PoolTexts:
    """The texts of a run's pool; its fingerprint tells a pool that was made anew from the one before."""
    table = RunDir(uri).pool.read_table("rows.parquet", ["prompt", "language"])
    return PoolTexts(table["prompt"].to_pylist(), table["language"].to_pylist())
