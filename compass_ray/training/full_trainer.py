"""Train a complete base model on several workers (COMPASS-FFT; COMPASS, section 4.3).

It uses the rows, batches, loss, schedule and early stopping of adapter training. Each worker takes its share of every batch;
the sum equals that of one worker with the full batch. A resumed run is bit-equal to an uninterrupted one with the same
number of workers. Reads and writes no files: the caller stores the state after an epoch.
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
from compass_ray.training.train_history import (
    EpochRecord,
    TrainingResult,
    is_out_of_patience,
    require_finite_loss,
    summarize_training,
)
from compass_ray.training.train_step import learning_rate_factor

OnEpoch = Callable[[Sequence[EpochRecord]], None]
"""Called on every worker with all epochs so far."""


class FullTrainer:
    """Trains a sharded model on rows. Every worker calls it with the same arguments."""

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
            ModelError: there are no rows, or the number of weights does not match.
        """
        if not rows or len(validation) != len(validation_weights):
            raise ModelError(
                f"there are {len(rows)} training rows, and {len(validation_weights)} weights for {len(validation)} validation "
                f"rows; pass at least one training row, and one weight for each validation row"
            )
        self.model, self.config, self.train_config = model, config, config.train
        self.group: WorkerGroup = current_group(model.device)
        limits = (self.train_config.max_tokens, self.train_config.loss_turns)
        self.examples = encode_rows(model.tokenizer, rows, *limits)
        weighted = zip(encode_rows(model.tokenizer, validation, *limits), validation_weights, strict=True)
        self.validation = [EncodedExample(e.input_ids, e.labels, float(weight)) for e, weight in weighted if weight > 0]
        self._lengths = [len(example) for example in self.examples]
        self._steps_per_epoch = math.ceil(len(self.examples) / self.train_config.batch_size)

    def run(self, *, history: Sequence[EpochRecord] = (), on_epoch: OnEpoch | None = None) -> TrainingResult:
        """Train until all epochs are done or patience ends. ``history`` is the training that the model already had.

        Raises:
            ModelError: a training or validation loss is not finite.
        """
        records = list(history)
        while len(records) < self.train_config.epochs and not is_out_of_patience(records, self.train_config.patience):
            records.append(self._train_epoch(len(records)))
            if on_epoch is not None:
                on_epoch(tuple(records))
        return summarize_training(records, self.train_config.epochs, self.model.num_parameters)

    def validation_loss(self) -> float | None:
        """Weighted mean over validation rows of each row's mean loss per token; None without rows, equal on all workers."""
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
        # The base model may use dropout; a resumed run must draw the same.
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, epoch, self.model.rank)).generate_state(1)[0]))
        batches = batch_by_length(self._lengths, self.train_config.batch_size, np.random.default_rng((self.config.seed, epoch)))
        self.model.engine.train()
        losses = self.group.all_reduce_sum(torch.stack([self._step(first + i, batch) for i, batch in enumerate(batches)]))
        rate = self.config.full.learning_rate
        train_loss = float(losses.mean())
        require_finite_loss("training", train_loss, epoch, "full.learning_rate", rate)
        validation_loss = self.validation_loss()
        require_finite_loss("validation", validation_loss, epoch, "full.learning_rate", rate)
        return EpochRecord(
            epoch=epoch + 1,
            steps=len(batches),
            tokens=sum(self._lengths),
            train_loss=train_loss,
            validation_loss=validation_loss,
            learning_rate=self._learning_rate(first + len(batches) - 1),
            seconds=time.monotonic() - started,
            reply_tokens=sum(example.num_reply_tokens for example in self.examples),
        )

    def _step(self, number: int, indices: Sequence[int]) -> Tensor:
        """One optimizer step; returns this worker's part of its loss."""
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
        """This worker's part of some rows, one batch per forward pass. All workers make the same number of passes.

        ZeRO-3 gathers weights from all workers in every pass, so no worker may skip one. A worker without rows repeats one at
        weight 0.
        """
        size, workers = self.model.micro_batch, self.model.world_size
        min_passes = math.ceil(len(examples) / (size * workers))
        empty = EncodedExample(examples[0].input_ids, examples[0].labels, 0.0)
        for number in range(passes or min_passes):
            start = (number * workers + self.model.rank) * size
            yield list(examples[start : start + size]) or [empty]
