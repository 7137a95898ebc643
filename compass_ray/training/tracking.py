"""One adapter's training as TensorBoard event files: loss and learning rate of each step, losses of each epoch.

Key property: an epoch is one file, named by its number and put in place in one step, so an epoch that is trained again
after a failure replaces its events and never doubles them; on an object store nothing is written twice as it grows. The
files are no part of the adapter, nor of its fingerprint. Decides nothing, and reads nothing back.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Literal, Protocol

from compass_ray.artifacts import Artifact
from compass_ray.training.train_history import EpochRecord, StepStats


class Tracker(Protocol):
    """Told of every epoch."""

    def on_train_begin(self, epochs: int) -> None:
        """Training starts after so many epochs that are done already."""

    def on_epoch_end(self, record: EpochRecord, steps: StepStats) -> None:
        """An epoch has just ended."""


class NullTracker:
    """Keeps nothing."""

    def on_train_begin(self, epochs: int) -> None:
        """Nothing."""

    def on_epoch_end(self, record: EpochRecord, steps: StepStats) -> None:
        """Nothing."""


class TensorBoardTracker:
    """Event files in a folder of their own, which TensorBoard reads in order of their names."""

    def __init__(self, folder: Artifact) -> None:
        """Nothing is written yet; the folder is never published as an artefact."""
        self._folder = folder

    def on_train_begin(self, epochs: int) -> None:
        """Remove what an attempt left that is not gone on with."""
        kept = {event_file(done) for done in range(1, epochs + 1)}
        for file in set(self._folder.files()) - kept:
            self._folder.drop(file)

    def on_epoch_end(self, record: EpochRecord, steps: StepStats) -> None:
        """Write the epoch's file."""
        self._folder.store_bytes(event_file(record.epoch), _encode_events(record, steps, time.time()))


def make_tracker(kind: Literal["none", "tensorboard"], folder: Artifact) -> Tracker:
    """What the configuration asks for."""
    return TensorBoardTracker(folder) if kind == "tensorboard" else NullTracker()


def event_file(epoch: int) -> str:
    """Name of an epoch's file.

    >>> event_file(3)
    'events.out.tfevents.0000000003'
    """
    return f"events.out.tfevents.{epoch:010d}"


def _encode_events(record: EpochRecord, steps: StepStats, ended: float) -> bytes:
    """The epoch as TensorBoard's records; its steps spread evenly over the seconds it took."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="compass-ray-") as folder:
        with SummaryWriter(folder) as writer:
            _write(writer, record, steps, ended)
        [file] = Path(folder).iterdir()
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
