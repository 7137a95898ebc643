"""Train one adapter on a frozen base model (COMPASS, sections 3.2.4 and 4.3).

The state after an epoch is a plain dict. A run resumed from it is bit-equal to an uninterrupted one on the same machine and
threads. `close` restores the base model bit for bit. Batching, gradient checkpointing and the number of workers change
results by rounding at most. One device; the only files are those of the adapter directory that `save` writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compass_ray.adapters.dora import attach
from compass_ray.adapters.peft_io import read_adapter, write_adapter
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample, TrainingRow, encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.models.token_memory import MOST_TRAINED
from compass_ray.training.collate import Batcher, PaddedBatcher
from compass_ray.training.distributed import ProcessGroupError, SingleProcess, WorkerGroup
from compass_ray.training.gradient_checkpointing import gradient_checkpointing
from compass_ray.training.losses import RowLosses, apply_weights
from compass_ray.training.packing import open_packed_batcher
from compass_ray.training.step_schedule import make_schedule
from compass_ray.training.train_history import (
    EpochRecord,
    StepStats,
    TrainingResult,
    best_record,
    is_out_of_patience,
    require_finite_loss,
    summarize_training,
)
from compass_ray.training.train_step import AdapterOptimizer, Objective, TaskObjective

__all__ = ["AdapterTrainer", "EpochRecord", "Objective", "TaskObjective", "TrainingResult", "TrainingRow"]

STATE_VERSION = 2

TrainingState = dict[str, Any]
OnEpoch = Callable[[EpochRecord, TrainingState], None]


class AdapterTrainer:
    """Trains one adapter. `close`, or the end of the ``with`` block, restores the base model."""

    def __init__(
        self,
        base: BaseModel,
        rows: Sequence[TrainingRow],
        validation: Sequence[TrainingRow],
        validation_weights: Sequence[float] | npt.NDArray[np.float64] | None,
        config: TrainConfig,
        *,
        seed: int,
        objective: Objective | None = None,
        initial: Path | None = None,
        workers: WorkerGroup | None = None,
        micro_batch_tokens: int | None = None,
    ) -> None:
        """Encode the rows and attach a new adapter, or the one in ``initial``, to the base model.

        ``validation_weights`` weigh the mean loss of each validation row; None weighs all rows equally. Early stopping and the
        best epoch use this mean. The last epoch is kept without validation rows, and with ``config.tokens``. All ``workers`` get
        the same arguments; each takes its share of the rows. ``micro_batch_tokens`` is the number of padded tokens of a forward
        pass; 8,192 if None, and 32,768 on a GPU.

        Raises:
            ModelError: there are no rows, fewer rows than steps in ``config.tokens``, weights or an initial adapter that do not
                fit, or a base model that cannot be trained with this configuration.
        """
        if not rows:
            raise ModelError("there are no rows to train on; add at least one, or use the base model")
        self.base, self.config, self.seed = base, config, seed
        self.group: WorkerGroup = workers or SingleProcess()
        self.examples = self.encode(rows)
        self._schedule = make_schedule(self.examples, config, seed)
        self.validation = apply_weights(self.encode(validation), validation_weights)
        self.adapter_config, tensors = _initial_adapter(initial, config.adapter)
        tokens = micro_batch_tokens or config.micro_batch_tokens or MOST_TRAINED.get(base.device.type, MOST_TRAINED["cpu"])
        with ExitStack() as stack:
            self._losses = RowLosses(base.model, base.device, stack.enter_context(self._open_batcher(tokens)), self.group)
            if config.gradient_checkpointing:
                stack.enter_context(gradient_checkpointing(base.model))
            self.adapter = attach(base.model, self.adapter_config, seed=seed)
            stack.callback(self.adapter.detach)
            if tensors is not None:
                self.adapter.load(tensors)
            self._cleanup = stack.pop_all()
        self.parameters = self.adapter.parameters()
        self._optimizer = AdapterOptimizer(
            self.parameters, self._losses, objective or TaskObjective(), config, seed=seed, steps=self._schedule.num_steps
        )
        self.best_tensors = self.adapter.tensors()
        self.history: list[EpochRecord] = []
        self.last_epoch_steps = StepStats(0, (), ())
        """Steps of the last epoch that this process trained."""

    def __enter__(self) -> AdapterTrainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *, resume: Mapping[str, Any] | None = None, on_epoch: OnEpoch | None = None) -> TrainingResult:
        """Train until all epochs are done or patience ends. ``resume`` is the state to continue from.

        With ``config.tokens``, training never ends early.
        ``on_epoch`` is called after each epoch with its record and the state to resume from. Only the first of several workers
        calls it; the others wait.

        Raises:
            ModelError: the state belongs to another training, or a training or validation loss is not finite.
            ProcessGroupError: the first of several workers failed, or they got different states.
        """
        if resume is not None:
            self._restore(resume)
        self._check_same_epoch()
        while not self._is_over():
            record = self._train_epoch(len(self.history))
            self.history.append(record)
            if self._kept() is record:
                self.best_tensors = self.adapter.tensors()
            if on_epoch is not None:
                self.group.run_on_rank_zero(lambda: on_epoch(self.history[-1], self.state()))
        self.adapter.load(self.best_tensors)
        size = sum(p.numel() for p in self.parameters.values())
        return summarize_training(self.history, self.config.epochs, size, self._kept())

    @property
    def model(self) -> Any:
        """The base model, with the adapter attached until `close`."""
        return self.base.model

    def encode(self, rows: Sequence[TrainingRow]) -> list[EncodedExample]:
        """Tokenize rows as for training."""
        return encode_rows(self.base.tokenizer, rows, self.config.max_tokens, self.config.loss_turns)

    def state(self) -> TrainingState:
        """Everything needed to resume, as plain containers and tensors for `torch.save`.

        The optimizer's tensors are not copies: write them before training continues.
        """
        return {
            "version": STATE_VERSION,
            "seed": self.seed,
            "history": [asdict(record) for record in self.history],
            "adapter": self.adapter.tensors(),
            "best": self.best_tensors,
            "optimizer": self._optimizer.optimizer.state_dict(),
        }

    def save(self, folder: Path) -> None:
        """Write the best epoch's adapter as a PEFT directory."""
        name = getattr(self.base.model.config, "_name_or_path", "") or self.base.name
        write_adapter(folder, self.adapter_config, self.adapter.to_peft(self.best_tensors), name)

    def close(self) -> None:
        """Detach the adapter. The base model is bit-equal to before."""
        self._cleanup.close()

    def validation_loss(self) -> float | None:
        """Weighted mean loss of the validation rows with the current adapter, None without rows."""
        return self._losses.evaluate(self.validation) if self.validation else None

    def _open_batcher(self, tokens: int) -> AbstractContextManager[Batcher]:
        if self.config.batches == "packed":
            return open_packed_batcher(self.base.model, self.config.max_tokens, self.examples[0], self.base.device, tokens)
        return nullcontext(PaddedBatcher(self.base.tokenizer.pad_token_id, self.base.device, tokens))

    def _is_over(self) -> bool:
        """Whether all epochs are done, or patience has ended. A fixed number of tokens is always trained completely."""
        stops_early = self.config.tokens is None and is_out_of_patience(self.history, self.config.patience)
        return len(self.history) >= self.config.epochs or stops_early

    def _kept(self) -> EpochRecord:
        """The epoch whose adapter is kept: the best one, or the last one if all methods train equally many tokens."""
        return best_record(self.history) if self.config.tokens is None else self.history[-1]

    def _train_epoch(self, epoch: int) -> EpochRecord:
        started, first, batches = time.monotonic(), self._schedule.first_step(epoch), self._schedule.steps(epoch)
        # Only the adapter is in training mode: the base is frozen, and its dropout would only add noise.
        for layer in self.adapter.layers.values():
            layer.train()
        if self.adapter_config.dropout:
            torch.manual_seed(int(np.random.SeedSequence((self.seed, epoch, 2)).generate_state(1)[0]))
        step_losses = [self._optimizer.step(first + i, batch) for i, batch in enumerate(batches)]
        losses = self.group.all_reduce_sum(torch.stack(step_losses))
        rate = self.config.learning_rate
        train_loss = float(losses.mean())
        require_finite_loss("training", train_loss, epoch, "train.learning_rate", rate)
        for layer in self.adapter.layers.values():
            layer.eval()
        validation_loss = self.validation_loss()
        require_finite_loss("validation", validation_loss, epoch, "train.learning_rate", rate)
        rates = tuple(self._optimizer.learning_rate(first + i) for i in range(len(batches)))
        self.last_epoch_steps = StepStats(first, tuple(losses.tolist()), rates)
        return EpochRecord(
            epoch=epoch + 1,
            steps=len(batches),
            tokens=sum(len(example) for batch in batches for example in batch),
            train_loss=train_loss,
            validation_loss=validation_loss,
            learning_rate=rates[-1],
            seconds=time.monotonic() - started,
            reply_tokens=sum(example.num_reply_tokens for batch in batches for example in batch),
        )

    def _check_same_epoch(self) -> None:
        """Raise ProcessGroupError on every worker unless all resume from the same epoch."""
        epochs = torch.zeros(self.config.epochs + 1, device=self.base.device)
        epochs[min(len(self.history), self.config.epochs)] = 1
        distinct = self.group.all_reduce_sum(epochs).nonzero().flatten().tolist()
        if len(distinct) > 1:
            raise ProcessGroupError(f"workers of one training resume from different epochs, {distinct}; restart all of them")

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state.get("version") != STATE_VERSION or state.get("seed") != self.seed:
            raise ModelError(
                f"the training state has version {state.get('version')} and seed {state.get('seed')}, expected "
                f"{STATE_VERSION} and {self.seed}; remove the checkpoint and train from the start"
            )
        self.adapter.load(state["adapter"])
        self.best_tensors = {name: tensor.to(self.base.device) for name, tensor in state["best"].items()}
        self._optimizer.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochRecord(**record) for record in state["history"]]


def _initial_adapter(initial: Path | None, config: AdapterConfig) -> tuple[AdapterConfig, Mapping[str, Tensor] | None]:
    if initial is None:
        return config, None
    stored = read_adapter(initial)
    if stored.scaling != stored.config().alpha / stored.r:
        raise ModelError(
            f"{initial} has alpha / r = {stored.scaling:g} and a fractional alpha; start from an adapter that compass_ray trained"
        )
    return stored.config().model_copy(update={"dropout": config.dropout}), stored.tensors
