"""``history.json`` of an adapter or of a fully fine-tuned model: its training, epoch by epoch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from compass_ray.records.base import FileRecord, Record


class TrainingEpochRecord(Record):
    """Mean losses of one epoch, in nats per token."""

    epoch: int
    steps: int | None = None
    """Of full fine-tuning, as ``tokens``, ``reply_tokens``, ``learning_rate`` and ``seconds``: training resumes from them."""
    tokens: int | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    learning_rate: float | None = None
    seconds: float | None = None
    reply_tokens: int | None = None


class HistoryRecord(FileRecord):
    """The training of one adapter version, or of a model."""

    FILE: ClassVar[str] = "history.json"

    epochs: tuple[TrainingEpochRecord, ...] = ()
    best_epoch: int | None = None
    rows: int | None = None
    tokens: int | None = None
    """Trained tokens of prompts and replies, each as often as it was used."""
    reply_tokens: int | None = None
    """Those of ``tokens`` that have a loss."""
    steps: int | None = None
    """Optimizer steps. None in records of earlier versions, as ``reply_tokens``."""
    seconds: float | None = None
    workers: int | None = None
    """Of full fine-tuning: the number of workers that the state is sharded over."""
    parent: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    """The version that this one was updated from. None for a first version."""
    strategy: str | None = None
    """Of an update, as ``update.strategy``."""
    from_scratch: bool = Field(default=False, validation_alias="anew", serialization_alias="anew")
    """Whether an update was trained from scratch, on a selection of its own."""
    rehearsed: int | None = None
    """Rows that an update rehearses."""
    fisher_rows: int | None = None
    """Rows that the Fisher information of an update is computed on."""
    fisher_seconds: float | None = None
    teacher_seconds: float | None = None
    """To compute what the previous version gives for the rehearsed rows."""
