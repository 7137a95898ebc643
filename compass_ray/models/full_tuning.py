"""A whole base model trained over several workers (COMPASS-FFT; COMPASS, section 4.3).

Key property: the same rows, batches, loss, schedule and early stopping as an adapter's training; each worker takes its
share of every batch, and the sum is that of one worker on all of it. A run resumed from its state gives the bits of an
uninterrupted one with as many workers. Not a launcher, and knows no files: what is kept after an epoch is for others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compass_ray.config import RunConfig
from compass_ray.models.batching import Batch, collate, length_batches, row_means, token_losses
from compass_ray.models.chat import Example, TrainingRow, encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.models.history import EpochRecord, TrainingResult, out_of_patience, result_of
from compass_ray.models.optimizer import rate
from compass_ray.models.row_losses import loss_mass
from compass_ray.models.workers import Workers, joined
from compass_ray.models.zero import ShardedModel

OnEpoch = Callable[[Sequence[EpochRecord]], None]
"""Called on every worker with all epochs so far."""


class FullTuning:
    """Trains a sharded model on rows; every worker does the same with the same arguments."""

    def __init__(
        self,
        model: ShardedModel,
        rows: Sequence[TrainingRow],
        validation: Sequence[TrainingRow],
        validation_weights: Sequence[float] | npt.NDArray[np.float64],
        config: RunConfig,
    ) -> None:
        """Encode the rows.

        ``validation_weights`` weigh the mean loss of each validation row.

        Raises:
            ModelError: no rows, or weights that do not fit.
        """
        if not rows or len(validation) != len(validation_weights):
            raise ModelError(
                f"{len(rows)} rows to train on and {len(validation_weights)} weights for {len(validation)} validation rows; "
                f"give at least one row, and one weight a validation row"
            )
        self.model, self.config, self.train = model, config, config.train
        self.workers: Workers = joined(model.device)
        self.examples = encode_rows(model.tokenizer, rows, self.train.max_tokens)
        weighed = zip(encode_rows(model.tokenizer, validation, self.train.max_tokens), validation_weights, strict=True)
        self.validation = [Example(e.input_ids, e.labels, float(weight)) for e, weight in weighed if weight > 0]
        self._lengths = [len(example) for example in self.examples]
        self._steps_an_epoch = math.ceil(len(self.examples) / self.train.batch_size)

    def run(self, *, history: Sequence[EpochRecord] = (), on_epoch: OnEpoch | None = None) -> TrainingResult:
        """Train until the epochs are done or patience ends; ``history`` is what the model was trained before.

        Raises:
            ModelError: the loss is not a number.
        """
        done = list(history)
        while len(done) < self.train.epochs and not out_of_patience(done, self.train.patience):
            done.append(self._epoch(len(done)))
            if on_epoch is not None:
                on_epoch(tuple(done))
        return result_of(done, self.train.epochs, self.model.parameters)

    def validation_loss(self) -> float | None:
        """Weighted mean over validation rows of each row's mean loss a token; None without rows, equal on all workers."""
        if not self.validation:
            return None
        total = torch.zeros((), dtype=torch.float64, device=self.model.device)
        order = sorted(self.validation, key=len)
        self.model.engine.eval()
        with torch.no_grad():
            for batch in map(self._collated, self._shares(order)):
                total += (row_means(token_losses(self.model.engine, batch), batch) * batch.weights).sum()
        return float(self.workers.summed(total)) / sum(example.weight for example in self.validation)

    def _epoch(self, epoch: int) -> EpochRecord:
        started, first = time.monotonic(), epoch * self._steps_an_epoch
        # A base model may have dropout of its own; a resumed run must draw the same.
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, epoch, self.model.rank)).generate_state(1)[0]))
        batches = length_batches(self._lengths, self.train.batch_size, np.random.default_rng((self.config.seed, epoch)))
        self.model.engine.train()
        losses = self.workers.summed(torch.stack([self._step(first + i, batch) for i, batch in enumerate(batches)]))
        train_loss = float(losses.mean())
        if not math.isfinite(train_loss):
            raise ModelError(
                f"the training loss became {train_loss} in epoch {epoch + 1}; lower full.learning_rate "
                f"(it is {self.config.full.learning_rate:g}) or look for damaged rows"
            )
        return EpochRecord(
            epoch=epoch + 1,
            steps=len(batches),
            tokens=sum(self._lengths),
            train_loss=train_loss,
            validation_loss=self.validation_loss(),
            learning_rate=self._rate(first + len(batches) - 1),
            seconds=time.monotonic() - started,
        )

    def _step(self, number: int, indices: Sequence[int]) -> Tensor:
        """One optimiser step; this worker's part of its loss."""
        self.model.set_rate(self._rate(number))
        examples = [self.examples[i] for i in indices]
        scale, total = 1.0 / loss_mass(examples), torch.zeros((), device=self.model.device)
        for batch in map(self._collated, self._shares(examples, self.model.passes)):
            loss = (token_losses(self.model.engine, batch) * batch.weights[batch.rows]).sum() * scale
            total += loss.detach()
            self.model.backward(loss)
        return total

    def _rate(self, step: int) -> float:
        return self.config.full.learning_rate * rate(step, self._steps_an_epoch * self.train.epochs, self.train.warmup_ratio)

    def _collated(self, examples: Sequence[Example]) -> Batch:
        return collate(examples, self.model.tokenizer.pad_token_id, self.model.device)

    def _shares(self, examples: Sequence[Example], passes: int | None = None) -> Iterator[list[Example]]:
        """This worker's part of some rows, one forward pass after another; all workers make equally many.

        A weight that is spread over the workers is put together anew in every pass, so none may leave one out: who has
        no rows left takes one that counts for nothing.
        """
        size, workers = self.model.micro_batch, self.model.workers
        least = math.ceil(len(examples) / (size * workers))
        nothing = Example(examples[0].input_ids, examples[0].labels, 0.0)
        for number in range(passes or least):
            start = (number * workers + self.model.rank) * size
            yield list(examples[start : start + size]) or [nothing]
