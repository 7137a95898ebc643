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
from compass_ray.models.chat_template import EncodedExample, TrainingRow, encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.training.collate import Batch, batch_by_length, collate, mean_loss_by_row, token_losses
from compass_ray.training.deepspeed_model import ShardedModel
from compass_ray.training.distributed import WorkerGroup, current_group
from compass_ray.training.losses import weighted_token_count
from compass_ray.training.train_history import EpochRecord, TrainingResult, is_out_of_patience, summarize_training
from compass_ray.training.train_step import learning_rate_factor

OnEpoch = Callable[[Sequence[EpochRecord]], None]
"""Called on every worker with all epochs so far."""


class FullTrainer:
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
        self.model, self.config, self.train_config = model, config, config.train
        self.group: WorkerGroup = current_group(model.device)
        self.examples = encode_rows(model.tokenizer, rows, self.train_config.max_tokens)
        weighed = zip(encode_rows(model.tokenizer, validation, self.train_config.max_tokens), validation_weights, strict=True)
        self.validation = [EncodedExample(e.input_ids, e.labels, float(weight)) for e, weight in weighed if weight > 0]
        self._lengths = [len(example) for example in self.examples]
        self._steps_per_epoch = math.ceil(len(self.examples) / self.train_config.batch_size)

    def run(self, *, history: Sequence[EpochRecord] = (), on_epoch: OnEpoch | None = None) -> TrainingResult:
        """Train until the epochs are done or patience ends; ``history`` is what the model was trained before.

        Raises:
            ModelError: the loss is not a number.
        """
        done = list(history)
        while len(done) < self.train_config.epochs and not is_out_of_patience(done, self.train_config.patience):
            done.append(self._train_epoch(len(done)))
            if on_epoch is not None:
                on_epoch(tuple(done))
        return summarize_training(done, self.train_config.epochs, self.model.num_parameters)

    def validation_loss(self) -> float | None:
        """Weighted mean over validation rows of each row's mean loss a token; None without rows, equal on all workers."""
        if not self.validation:
            return None
        total = torch.zeros((), dtype=torch.float64, device=self.model.device)
        order = sorted(self.validation, key=len)
        self.model.engine.eval()
        with torch.no_grad():
            for batch in map(self._collate, self._local_batches(order)):
                total += (mean_loss_by_row(token_losses(self.model.engine, batch), batch) * batch.weights).sum()
        return float(self.group.all_reduce_sum(total)) / sum(example.weight for example in self.validation)

    def _train_epoch(self, epoch: int) -> EpochRecord:
        started, first = time.monotonic(), epoch * self._steps_per_epoch
        # A base model may have dropout of its own; a resumed run must draw the same.
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, epoch, self.model.rank)).generate_state(1)[0]))
        batches = batch_by_length(self._lengths, self.train_config.batch_size, np.random.default_rng((self.config.seed, epoch)))
        self.model.engine.train()
        losses = self.group.all_reduce_sum(torch.stack([self._step(first + i, batch) for i, batch in enumerate(batches)]))
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
            learning_rate=self._learning_rate(first + len(batches) - 1),
            seconds=time.monotonic() - started,
        )

    def _step(self, number: int, indices: Sequence[int]) -> Tensor:
        """One optimiser step; this worker's part of its loss."""
        self.model.set_learning_rate(self._learning_rate(number))
        examples = [self.examples[i] for i in indices]
        scale, total = 1.0 / weighted_token_count(examples), torch.zeros((), device=self.model.device)
        for batch in map(self._collate, self._local_batches(examples, self.model.gradient_accumulation_steps)):
            loss = (token_losses(self.model.engine, batch) * batch.weights[batch.rows]).sum() * scale
            total += loss.detach()
            self.model.backward(loss)
        return total

    def _learning_rate(self, step: int) -> float:
        return self.config.full.learning_rate * learning_rate_factor(
            step, self._steps_per_epoch * self.train_config.epochs, self.train_config.warmup_ratio
        )

    def _collate(self, examples: Sequence[EncodedExample]) -> Batch:
        return collate(examples, self.model.tokenizer.pad_token_id, self.model.device)

    def _local_batches(self, examples: Sequence[EncodedExample], passes: int | None = None) -> Iterator[list[EncodedExample]]:
        """This worker's part of some rows, one forward pass after another; all workers make equally many.

        A weight that is spread over the workers is put together anew in every pass, so none may leave one out: who has
        no rows left takes one that counts for nothing.
        """
        size, workers = self.model.micro_batch, self.model.world_size
        least = math.ceil(len(examples) / (size * workers))
        nothing = EncodedExample(examples[0].input_ids, examples[0].labels, 0.0)
        for number in range(passes or least):
            start = (number * workers + self.model.rank) * size
            yield list(examples[start : start + size]) or [nothing]
