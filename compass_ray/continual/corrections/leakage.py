"""Find corrections with prompts that are, or nearly equal, test questions or pool rows of their language.

Test questions are found by content, as in every selection, and by embedding, which also finds paraphrases. The pool's
rows of the language are read in blocks. COMPASS, sections 3.2.3 (tau) and 4.1 (leaks).
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
    """What the corrections of a language are compared with: its test questions and its pool rows."""

    language: str
    test_questions: Sequence[str]
    pool: PoolView

    @classmethod
    def read(cls, run: RunDir, language: str) -> ComparisonSet:
        """The comparison set of a language of a run."""
        questions = run.guide(language).read_table("test.parquet", ["question"])["question"].to_pylist()
        return cls(language, questions, PoolView.read(run.clusters))

    def find_test_leaks(self, pairs: Sequence[CorrectionPair]) -> dict[str, RuleFinding]:
        """Findings for prompts that are test questions, by the pair's id."""
        leaked = np.isin(prompt_keys(pair.prompt for pair in pairs), prompt_keys(self.test_questions))
        finding = RuleFinding(CorrectionState.REFUSED, "the prompt is a test question of the language")
        return {pair.id: finding for pair, is_leaked in zip(pairs, leaked, strict=True) if is_leaked}

    def find_near_duplicates(
        self, pairs: Sequence[CorrectionPair], embeddings: npt.NDArray[np.float32], embedder: Embedder, tau: float
    ) -> dict[str, RuleFinding]:
        """Findings for prompts with a cosine above ``tau`` to a test question or a pool row of the language, by the pair's id.

        A prompt near a test question is refused. A prompt near a pool row is held, and a person may accept it. Embeds every
        test question of the language.
        """
        questions = embedder.encode(self.test_questions, batch_size=_BATCH_SIZE)
        own = np.flatnonzero(self.pool.language_mask(self.language))
        to_pool = nearest_cosine(embeddings, lambda at: self.pool.stored_vectors(own[at]), len(own))
        to_test = nearest_cosine(embeddings, lambda at: questions[at], len(questions))
        held = _above(pairs, to_pool, tau, CorrectionState.HELD, "a row of the pool")
        return held | _above(pairs, to_test, tau, CorrectionState.REFUSED, "a test question of the language")


def _above(
    pairs: Sequence[CorrectionPair], cosine: npt.NDArray[np.float64], tau: float, state: CorrectionState, what: str
) -> dict[str, RuleFinding]:
    return {
        pair.id: RuleFinding(state, f"the prompt nearly equals {what} (cosine {each:.2f}, above {tau:g})")
        for pair, each in zip(pairs, cosine, strict=True)
        if each > tau
    }
