"""``budget.json`` of a budget search, and the files that its trials share (COMPASS, section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from compass_ray.records.base import FileRecord, Record


class ForecastRecord(Record):
    """The share of the gap that each budget fills, and the budget that the forecast suggests."""

    budgets: tuple[float, ...] = ()
    filled: tuple[float, ...] = ()
    suggestion: float | None = None


class BudgetHoldoutRecord(Record):
    """The slice that trials are measured on: rows of the language itself, and rows of another language in their place."""

    own: int
    stand_ins: int
    language: str | None = None
    """Of the stand-ins. None without any."""


class TrialEpochRecord(Record):
    """Mean losses of one epoch of a trial, in nats per token."""

    epoch: int
    train_loss: float
    validation_loss: float
    seconds: float | None = None


class TrialRecord(Record):
    """One trial of a budget. ``loss`` is the lowest of its epochs on the held-out slice, in nats per token."""

    budget: float
    epochs: tuple[TrialEpochRecord, ...] = ()
    stopped: bool = False
    """Whether the scheduler stopped the trial early."""
    loss: float | None = None
    rows: int | None = None

    @property
    def best_loss(self) -> float:
        """The lowest validation loss of its epochs."""
        return min(epoch.validation_loss for epoch in self.epochs)


class PreparedTrialsRecord(FileRecord):
    """``prepared.json``, until the search ends: the forecast, the held-out slice, and the rows of each budget."""

    FILE: ClassVar[str] = "prepared.json"

    forecast: ForecastRecord
    held: BudgetHoldoutRecord
    rows: Mapping[str, int]


class BudgetRecord(FileRecord):
    """The budget found for a language, as a factor of its own rows, and how it was found."""

    FILE: ClassVar[str] = "budget.json"

    language: str
    rule: str = "tuned"
    budget: float
    forecast: ForecastRecord = ForecastRecord()
    held: BudgetHoldoutRecord | None = None
    """Of a tuned budget."""
    trials: tuple[TrialRecord, ...] = ()

    @property
    def loss(self) -> float | None:
        """The loss of the chosen trial. None without trials."""
        return next((trial.loss for trial in self.trials if trial.budget == self.budget), None)
