"""What the stages write, as typed records: one frozen model a JSON file, or a line of one.

Key property: only what has no meaning without it is required, so a record written by a later version still
reads. Nothing is read from disk here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from compass_ray.core.gap import Gap, measure_gap


class Record(BaseModel):
    """Base of everything read here: frozen, and deaf to keys that a later version may add."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class QuotaRecord(Record):
    """One cluster of one language's selection; counts in rows, ``n_eval`` in guide prompts."""

    cluster: int
    n_target: int
    n_aux: int
    n_eval: int
    weight: float = 0.0
    quota: int = 0
    selected: int = 0


class NoiseRecord(Record):
    """Rows and guide prompts outside every cluster; COMPASS selects none of them."""

    target: int = 0
    auxiliary: int = 0
    guide: int = 0
    selected: int = 0


@dataclass(frozen=True)
class ClusterShares:
    """One cluster's part of the guide prompts, of the language's own rows, and of the rows trained on; each in [0, 1]."""

    guide: float
    own: float
    trained: float


class TransferRecord(Record):
    """Transfer languages that a method took rows of, the best first, with how well each scored, and by what."""

    languages: tuple[str, ...] = ()
    similarity: tuple[float, ...] = ()
    vectors: str = "unknown"
    """Where the languages' features come from."""


class AllocationRecord(Record):
    """How one language's budget, in rows, went to the clusters; divergences in bits."""

    language: str
    method: str
    budget: int
    unfilled: int = 0
    low_subjects: tuple[str, ...] = ()
    js_before: float | None = None
    js_after: float | None = None
    noise: NoiseRecord = NoiseRecord()
    clusters: tuple[QuotaRecord, ...] = ()
    transfer: TransferRecord = TransferRecord()
    by_language: Mapping[str, AllocationRecord] = Field(default_factory=dict)
    """Of a selection that all languages share: what it is for each."""

    @cached_property
    def gap(self) -> Gap:
        """Distributions over ``clusters``, noise last: guide set, training rows, with the selection.

        Raises:
            ValueError: the guide set is empty.
        """
        return measure_gap(
            [*(c.n_eval for c in self.clusters), self.noise.guide],
            [*(c.n_target for c in self.clusters), self.noise.target],
            [*(c.selected for c in self.clusters), self.noise.selected],
        )

    def quota(self, cluster: int) -> QuotaRecord | None:
        """What one cluster was given, noise (-1) nothing; None for a cluster that has no place here."""
        if cluster < 0:
            found = self.noise
            return QuotaRecord(
                cluster=cluster, n_target=found.target, n_aux=found.auxiliary, n_eval=found.guide, selected=found.selected
            )
        return next((each for each in self.clusters if each.cluster == cluster), None)

    def shares(self, cluster: int) -> ClusterShares | None:
        """One cluster's place in the gap; None where it has none, or where there are no guide prompts."""
        numbers = [*(each.cluster for each in self.clusters), -1]
        if cluster not in numbers or not self.n_guide:
            return None
        place, gap = numbers.index(cluster), self.gap
        return ClusterShares(float(gap.p_eval[place]), float(gap.p_before[place]), float(gap.p_after[place]))

    @property
    def n_guide(self) -> int:
        """Guide prompts in all clusters and in noise."""
        return self.noise.guide + sum(each.n_eval for each in self.clusters)


class ExampleRecord(Record):
    """A central row of a cluster."""

    row_id: str
    prompt: str
    language: str


class ClusterRecord(Record):
    """One cluster: its size in rows, the languages in it and its most central rows."""

    cluster: int
    coarse: int | None = None
    size: int = 0
    languages: Mapping[str, int] = Field(default_factory=dict)
    subject: str | None = None
    examples: tuple[ExampleRecord, ...] = ()


class CellRecord(Record):
    """One cell of the clustering sweep."""

    parameters: Mapping[str, Any] = Field(default_factory=dict)
    score: float | None = None
    n_clusters: int | None = None
    noise_share: float | None = None
    chosen: bool = False
    details: Mapping[str, float | None] = Field(default_factory=dict)
    """What else was measured of it, by name."""


class SweepRecord(Record):
    """The clustering: method, backend, every cell that was tried, and the clusters of the one chosen."""

    method: str = "unknown"
    backend: str = "unknown"
    cells: tuple[CellRecord, ...] = ()
    clusters: tuple[ClusterRecord, ...] = ()


class TrainingEpochRecord(Record):
    """Mean losses of one epoch, in nats a token, and its time in seconds."""

    epoch: float
    train_loss: float | None = None
    validation_loss: float | None = None
    seconds: float | None = None


class HistoryRecord(Record):
    """The training of one adapter."""

    epochs: tuple[TrainingEpochRecord, ...] = ()
    best_epoch: float | None = None
    rows: int | None = None
    tokens: int | None = None
    seconds: float | None = None


class ForecastRecord(Record):
    """The share of the gap that each of some budgets fills, and the budget forecast from it."""

    budgets: tuple[float, ...] = ()
    filled: tuple[float, ...] = ()
    suggestion: float | None = None


class TrialRecord(Record):
    """One budget tried: the loss of its best epoch on the held-out slice, in nats a token."""

    budget: float
    rows: int | None = None
    epochs: tuple[TrainingEpochRecord, ...] = ()
    loss: float | None = None
    stopped: bool = False


class BudgetRecord(Record):
    """The budget found for a language, a factor of its own rows, and how it was found."""

    language: str
    budget: float
    rule: str = "tuned"
    forecast: ForecastRecord = ForecastRecord()
    trials: tuple[TrialRecord, ...] = ()

    @property
    def loss(self) -> float | None:
        """That of the trial chosen, None where nothing was tried."""
        return next((trial.loss for trial in self.trials if trial.budget == self.budget), None)


class StatTestRecord(Record):
    """One of several tests of a check: what it found and how likely as much is by chance."""

    name: str
    effect: float
    p_value: float
    exceeded: bool = False


class CheckRecord(Record):
    """One look of the monitor at a language's window; ``prompts`` is how many were seen so far."""

    language: str
    prompts: int
    divergence: float
    threshold: float
    p_value: float | None = None
    drifted: bool = False
    noise: float | None = None
    distance: float | None = None
    """Mean of one minus the cosine of the window's prompts to their centroids."""
    legs: tuple[StatTestRecord, ...] = ()
    version: str | None = None
    time: float | str | None = None


class DecisionRecord(Record):
    """One thing the continual loop decided."""

    kind: str
    language: str
    prompts: int | None = None
    time: float | str | None = None
    from_version: str | None = Field(default=None, alias="from")
    to_version: str | None = Field(default=None, alias="to")
    accepted: bool | None = None
    reason: str | None = None


class ChangeRecord(Record):
    """Accuracy on ``items`` test items with the adapter version before and the one after."""

    items: int
    before: float
    after: float


class UpdateRecord(Record):
    """What one update did to accuracy on subjects of the old and the new traffic."""

    language: str
    from_version: str = Field(alias="from")
    to_version: str = Field(alias="to")
    old: ChangeRecord | None = None
    new: ChangeRecord | None = None
    old_subjects: tuple[str, ...] = ()
    new_subjects: tuple[str, ...] = ()
    gate: Mapping[str, Any] = Field(default_factory=dict)


class ScoredRecord(Record):
    """One method's answers to a language's test items, in the order of ``item_ids``."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    method: str
    language: str
    item_ids: tuple[str, ...]
    subjects: tuple[str | None, ...]
    correct: np.ndarray
    """bool[n]"""
    low_subjects: tuple[str, ...] = ()
