"""Reference policies: a window is compared with recent prompts, alone or (as in the paper) plus the rows selected for them.

Both policies depend only on the prompts and on the rows that the adapter was trained on. The second uses the quotas of an
update (COMPASS, sections 3.2.2 and 3.3.2, equation 3). This module reads nothing and selects no single rows.
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
    """A reference distribution, and the rule for the next one after an update."""

    @property
    def counts(self) -> IntArray:
        """Counts int64[bins + 1] over coarse clusters, noise last."""

    def after_update(self, prompts: PromptBank, clusters: IntArray, rng: np.random.Generator) -> Self:
        """The reference after an update for prompts in fine ``clusters`` int64[n]."""


@dataclass(frozen=True)
class PromptsOnly:
    """The reference contains the prompts only."""

    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def after_update(self, prompts: PromptBank, clusters: IntArray, rng: np.random.Generator) -> PromptsOnly:
        """Count the prompts; draw nothing."""
        return PromptsOnly(cluster_counts(prompts.to_coarse(clusters), prompts.num_coarse))


@dataclass(frozen=True)
class PromptsAndSelectedRows:
    """The reference contains the prompts and the auxiliary rows that COMPASS selects for them.

    ``own`` and ``candidates`` int64[K] are numbers of rows by fine cluster: rows that the adapter was trained on, and rows
    that remain to select from. ``rows`` is the number of the language's own rows; the budget is a factor of it.
    """

    rule: SelectConfig
    budget: float
    rows: int
    own: IntArray
    candidates: IntArray
    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def after_update(self, prompts: PromptBank, clusters: IntArray, rng: np.random.Generator) -> PromptsAndSelectedRows:
        """Allocate quotas for the prompts, and count the prompts and the selected rows."""
        n_eval = cluster_counts(clusters, len(prompts.coarse))[:-1]
        total = budget_rows(self.budget, self.rows)
        chosen = allocate_quotas(
            self.own, self.candidates, n_eval, total, weights=self.rule.weights, overflow=self.rule.overflow, rng=rng
        )
        selected = np.bincount(prompts.coarse, weights=chosen, minlength=prompts.num_coarse + 1).astype(np.int64)
        counts = paper_reference(cluster_counts(prompts.to_coarse(clusters), prompts.num_coarse), selected)
        left = np.maximum(self.candidates - chosen, 0)
        return replace(self, counts=counts, own=self.own + chosen, candidates=left)
