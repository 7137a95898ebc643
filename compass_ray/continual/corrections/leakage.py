"""Where the prompts of corrections lie, and what they are too near to: test questions and the pool's rows of their language.

Key property: test questions are found by content, as for every selection, and by embedding, so that one in other words is found
as well. The pool is read in blocks, its rows of one language only. COMPASS, sections 3.2.3 (tau) and 4.1 (leaks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.continual.corrections.verdicts import CorrectionState, RuleFinding
from compass_ray.core.round_robin import nearest_cosine
from compass_ray.monitoring.cluster_assigner import Embedder
from compass_ray.monitoring.corrections import CorrectionPair
from compass_ray.row_selection import PoolView, prompt_keys

_BATCH_SIZE = 64


@dataclass(frozen=True)
class ComparisonSet:
    """What a language's corrections are compared with: its test questions, and its rows of the pool."""

    language: str
    test_questions: Sequence[str]
    pool: PoolView

    @classmethod
    def read(cls, run: RunDir, language: str) -> ComparisonSet:
        """Those of a run."""
        questions = run.guide(language).read_table("test.parquet", ["question"])["question"].to_pylist()
        return cls(language, questions, PoolView.read(run.clusters))

    def find_test_leaks(self, pairs: Sequence[CorrectionPair]) -> dict[str, RuleFinding]:
        """Prompts that are test questions, by the pair's id."""
        leaked = np.isin(prompt_keys(pair.prompt for pair in pairs), prompt_keys(self.test_questions))
        finding = RuleFinding(CorrectionState.REFUSED, "the prompt is a test question of the language")
        return {pair.id: finding for pair, is_asked in zip(pairs, leaked, strict=True) if is_asked}

    def find_near_duplicates(
        self, pairs: Sequence[CorrectionPair], embeddings: npt.NDArray[np.float32], embedder: Embedder, tau: float
    ) -> dict[str, RuleFinding]:
        """Prompts with a cosine above ``tau`` to a test question or to a pool row of the language, by the pair's id.

        What is near to a test question never enters; what the pool nearly holds already, a person may let in. Every test
        question of the language is embedded for it.
        """
        questions = embedder.encode(self.test_questions, batch_size=_BATCH_SIZE)
        own = np.flatnonzero(self.pool.language_mask(self.language))
        to_pool = nearest_cosine(embeddings, lambda at: self.pool.stored_vectors(own[at]), len(own))
        to_test = nearest_cosine(embeddings, lambda at: questions[at], len(questions))
        found = _above(pairs, to_pool, tau, CorrectionState.HELD, "a row of the pool")
        return found | _above(pairs, to_test, tau, CorrectionState.REFUSED, "a test question of the language")


def _above(
    pairs: Sequence[CorrectionPair], cosine: npt.NDArray[np.float64], tau: float, state: CorrectionState, what: str
) -> dict[str, RuleFinding]:
    return {
        pair.id: RuleFinding(state, f"the prompt is all but {what} (cosine {each:.2f}, above {tau:g})")
        for pair, each in zip(pairs, cosine, strict=True)
        if each > tau
    }
