"""TensorBoard event files of one adapter's training: loss and learning rate per step, losses per epoch.

Each epoch is one file, named by its number and written atomically. An epoch that is trained again after a failure replaces
its file, so events are never duplicated, and an object store needs no appends. The files belong neither to the adapter nor to
its fingerprint. Nothing reads them back.
"""

from __future__ import annotations

import time
from typing import Any, Literal, Protocol

from compass_ray.artifacts import Artifact
from compass_ray.artifacts.write_errors import temporary_folder
from compass_ray.training.train_history import EpochRecord, StepStats


class Tracker(Protocol):
    """Receives every epoch."""

    def on_train_begin(self, epochs: int) -> None:
        """Training starts after ``epochs`` completed epochs."""

    def on_epoch_end(self, record: EpochRecord, steps: StepStats) -> None:
        """An epoch has ended."""


class NullTracker:
    """Records nothing."""

    def on_train_begin(self, epochs: int) -> None:
        """Do nothing."""

    def on_epoch_end(self, record: EpochRecord, steps: StepStats) -> None:
        """Do nothing."""


class TensorBoardTracker:
    """Writes event files into one folder, which TensorBoard reads in order of their names."""

    def __init__(self, folder: Artifact) -> None:
        """Write nothing yet. The folder is never published as an artifact."""
        self._folder = folder

    def on_train_begin(self, epochs: int) -> None:
        """Remove files of epochs that are trained again."""
        retained = {event_file(epoch) for epoch in range(1, epochs + 1)}
        for file in set(self._folder.files()) - retained:
            self._folder.drop(file)

    def on_epoch_end(self, record: EpochRecord, steps: StepStats) -> None:
        """Write the epoch's file."""
        self._folder.store_bytes(event_file(record.epoch), _encode_events(record, steps, time.time()))


def make_tracker(kind: Literal["none", "tensorboard"], folder: Artifact) -> Tracker:
    """The tracker for ``train.tracking``."""
    return TensorBoardTracker(folder) if kind == "tensorboard" else NullTracker()


def event_file(epoch: int) -> str:
    """Name of an epoch's file.

    >>> event_file(3)
    'events.out.tfevents.0000000003'
    """
    return f"events.out.tfevents.{epoch:010d}"


def _encode_events(record: EpochRecord, steps: StepStats, ended: float) -> bytes:
    """The epoch as TensorBoard records, with its steps spread evenly over its duration."""
    from tensorboardX import SummaryWriter

    with temporary_folder() as folder:
        with SummaryWriter(str(folder)) as writer:
            _write(writer, record, steps, ended)
        [file] = folder.iterdir()
        return file.read_bytes()


def _write(writer: Any, record: EpochRecord, steps: StepStats, ended: float) -> None:
    count = len(steps.losses)
    for i, (loss, rate) in enumerate(zip(steps.losses, steps.learning_rates, strict=True)):
        when = ended - record.seconds * (count - 1 - i) / count
        writer.add_scalar("train/loss", loss, steps.first_step + i, when)
        writer.add_scalar("train/learning_rate", rate, steps.first_step + i, when)
    last = steps.first_step + count - 1
    writer.add_scalar("epoch/train_loss", record.train_loss, last, ended)
    if record.validation_loss is not None:
        writer.add_scalar("epoch/validation_loss", record.validation_loss, last, ended)
    writer.add_scalar("epoch/tokens_per_second", record.tokens / max(record.seconds, 1e-9), last, ended)
