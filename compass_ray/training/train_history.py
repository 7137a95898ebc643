"""Training history by epoch, the best epoch, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compass_ray.models.errors import ModelError


@dataclass(frozen=True)
class EpochRecord:
    """Results of one epoch; losses in nats per token."""

    epoch: int
    steps: int
    tokens: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float
    seconds: float
    """Wall-clock time, the only field that a repetition does not reproduce."""
    reply_tokens: int | None = None
    """Those of ``tokens`` that have a loss. None in records of earlier versions."""


@dataclass(frozen=True)
class StepStats:
    """Loss (nats per token) and learning rate of the steps of one epoch; ``first_step`` is the number of the first one."""

    first_step: int
    losses: tuple[float, ...]
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class TrainingResult:
    """The history and the epoch with the retained adapter."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    validation_loss: float | None
    stopped_early: bool
    steps: int
    parameters: int
    tokens: int
    """Tokens of all processed training rows, prompts included."""
    seconds: float
    reply_tokens: int | None = None
    """Those of ``tokens`` that have a loss."""

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second; the time includes validation."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def require_finite_loss(
    kind: Literal["training", "validation"], loss: float | None, epoch: int, setting: str, learning_rate: float
) -> None:
    """Refuse a loss of an epoch (counted from 0) from which no best epoch follows; ``setting`` names the learning rate.

    Raises:
        ModelError: the loss is infinite or NaN.
    """
    if loss is not None and not math.isfinite(loss):
        raise ModelError(
            f"the {kind} loss became {loss} in epoch {epoch + 1}; lower {setting} (it is {learning_rate:g}). If it fails "
            f"at any rate, the base model itself gives NaN: download or convert it again, or set train.dtype to float32"
        )


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch with the lowest validation loss, the earlier one of equals; the last epoch without validation."""
    if history[-1].validation_loss is None:
        return history[-1]
    return min(history, key=lambda record: (record.validation_loss, record.epoch))


def is_out_of_patience(history: Sequence[EpochRecord], patience: int) -> bool:
    """Whether ``patience`` epochs have passed since the best one."""
    return bool(history) and history[-1].epoch - best_record(history).epoch >= patience


def sum_reply_tokens(history: Sequence[EpochRecord]) -> int | None:
    """Trained tokens with a loss; None if an epoch did not record them."""
    counts = [record.reply_tokens for record in history if record.reply_tokens is not None]
    return sum(counts) if len(counts) == len(history) else None


def summarize_training(
    history: Sequence[EpochRecord], epochs: int, parameters: int, kept: EpochRecord | None = None
) -> TrainingResult:
    """Summarize the history; ``epochs`` is the planned number of epochs, ``kept`` the retained one (the best if None)."""
    best = kept or best_record(history)
    return TrainingResult(
        history=tuple(history),
        best_epoch=best.epoch,
        validation_loss=best.validation_loss,
        stopped_early=len(history) < epochs,
        steps=sum(record.steps for record in history),
        parameters=parameters,
        tokens=sum(record.tokens for record in history),
        seconds=sum(record.seconds for record in history),
        reply_tokens=sum_reply_tokens(history),
    )
