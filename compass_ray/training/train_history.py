"""What a training has done so far, epoch by epoch, and what follows from it: the best epoch, and when patience ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did; losses in nats a token."""

    epoch: int
    steps: int
    tokens: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float
    seconds: float
    """Wall-clock time, the one field that a repetition does not reproduce."""


@dataclass(frozen=True)
class StepStats:
    """Loss (nats a token) and learning rate of the steps of one epoch, the first of which is number ``first``."""

    first_step: int
    losses: tuple[float, ...]
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class TrainingResult:
    """The history and which epoch's adapter is kept."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    validation_loss: float | None
    stopped_early: bool
    steps: int
    parameters: int
    tokens: int
    """Tokens of training rows that were gone through, prompts included."""
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of training rows; the time includes validation."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch with the least validation loss, the earlier of equal ones; the last where nothing is validated."""
    if history[-1].validation_loss is None:
        return history[-1]
    return min(history, key=lambda record: (record.validation_loss, record.epoch))


def is_out_of_patience(history: Sequence[EpochRecord], patience: int) -> bool:
    """Whether ``patience`` epochs have passed since the best one."""
    return bool(history) and history[-1].epoch - best_record(history).epoch >= patience


def summarize_training(history: Sequence[EpochRecord], epochs: int, parameters: int) -> TrainingResult:
    """The history summed up; ``epochs`` were wanted."""
    best = best_record(history)
    return TrainingResult(
        history=tuple(history),
        best_epoch=best.epoch,
        validation_loss=best.validation_loss,
        stopped_early=len(history) < epochs,
        steps=sum(record.steps for record in history),
        parameters=parameters,
        tokens=sum(record.tokens for record in history),
        seconds=sum(record.seconds for record in history),
    )
