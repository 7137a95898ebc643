"""What a window is compared with: prompts that were asked, alone or, as printed, with the rows selected for them.

Key property: both rules are functions of what was asked and of what the adapter has been trained on; the second selects by
the same quotas as an update would (COMPASS, sections 3.2.2 and 3.3.2, equation 3). It reads nothing and picks no rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import numpy as np

from compass_ray.config import SelectConfig
from compass_ray.core.array_checks import IntArray
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.drift import paper_reference
from compass_ray.core.quotas import allocate_quotas, budget_rows
from compass_ray.evaluation.simulation.drift.streams import PromptBank


class ReferencePolicy(Protocol):
    """A reference distribution, and how the next one follows from fresh prompts."""

    @property
    def counts(self) -> IntArray:
        """Counts int64[bins + 1] over coarse clusters, noise last."""

    def after_update(self, prompts: PromptBank, asked: IntArray, rng: np.random.Generator) -> Self:
        """The reference after an update for prompts in fine clusters ``asked`` int64[n]."""


@dataclass(frozen=True)
class PromptsOnly:
    """Prompts asked, nothing else."""

    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def after_update(self, prompts: PromptBank, asked: IntArray, rng: np.random.Generator) -> PromptsOnly:
        """Counts of the prompts; draws nothing."""
        return PromptsOnly(cluster_counts(prompts.to_coarse(asked), prompts.num_coarse))


@dataclass(frozen=True)
class PromptsAndSelectedRows:
    """Prompts asked and the auxiliary rows that COMPASS selects for them.

    ``own`` and ``candidates`` int64[K] are rows by fine cluster: what the adapter has been trained on so far, and what is
    left to select from. ``rows`` is the language's own number of rows, which the budget is a factor of.
    """

    rule: SelectConfig
    budget: float
    rows: int
    own: IntArray
    candidates: IntArray
    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def after_update(self, prompts: PromptBank, asked: IntArray, rng: np.random.Generator) -> PromptsAndSelectedRows:
        """Select for the prompts, and count them with the rows selected."""
        n_eval = cluster_counts(asked, len(prompts.coarse))[:-1]
        total = budget_rows(self.budget, self.rows)
        chosen = allocate_quotas(
            self.own, self.candidates, n_eval, total, weights=self.rule.weights, overflow=self.rule.overflow, rng=rng
        )
        selected = np.bincount(prompts.coarse, weights=chosen, minlength=prompts.num_coarse + 1).astype(np.int64)
        counts = paper_reference(cluster_counts(prompts.to_coarse(asked), prompts.num_coarse), selected)
        left = np.maximum(self.candidates - chosen, 0)
        return replace(self, counts=counts, own=self.own + chosen, candidates=left)
