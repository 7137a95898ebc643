"""One adapter trained on a frozen base model (COMPASS, sections 3.2.4 and 4.3).

Key properties: the state handed out after an epoch is a plain dict, and a run resumed from it gives the bits an
uninterrupted one gives on the same machine and threads; the base comes back bit-equal on `close`. Not a launcher: one
process, one device, no files but the adapter directory that `save` writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.models.base import BaseModel
from compass_ray.models.batching import Batch, bounded, collate, length_batches, row_means, token_losses
from compass_ray.models.chat import Example, TrainingRow, encode_rows
from compass_ray.models.dora import attach
from compass_ray.models.errors import ModelError
from compass_ray.models.objective import Objective, Step, TaskObjective
from compass_ray.models.optimizer import make_optimizer, rate
from compass_ray.models.peft_directory import read_adapter, write_adapter

__all__ = ["EpochRecord", "FineTuning", "Objective", "TaskObjective", "TrainingResult", "TrainingRow"]

STATE_VERSION = 1
_TOKENS_AT_ONCE = {"cpu": 8_192, "cuda": 32_768}
"""Padded tokens of one forward pass; a longer batch is summed up from several."""


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
class TrainingResult:
    """The history and which epoch's adapter is kept."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    validation_loss: float | None
    stopped_early: bool
    steps: int
    parameters: int
    tokens: int
    seconds: float


State = dict[str, Any]
OnEpoch = Callable[[EpochRecord, State], None]


class FineTuning:
    """Trains one adapter; `close` (or leaving the ``with`` block) gives the base model back."""

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
    ) -> None:
        """Encode the rows and put a new adapter, or the one in ``initial``, on the base.

        ``validation_weights`` weigh the mean loss of each validation row (all alike when None); early stopping and the
        choice of the best epoch go by that mean, and without validation rows the last epoch is kept.

        Raises:
            ModelError: no rows, weights that do not fit, or an initial adapter that does not.
        """
        if not rows:
            raise ModelError("there are no rows to train on; give at least one, or fall back to the base model")
        self.base, self.config, self.seed = base, config, seed
        self.objective: Objective = objective or TaskObjective()
        self.examples = self.encode(rows)
        self.validation = _weighted(self.encode(validation), validation_weights)
        self.adapter_config, tensors = _start(initial, config.adapter)
        self.adapter = attach(base.model, self.adapter_config, seed=seed)
        try:
            if tensors is not None:
                self.adapter.load(tensors)
        except ModelError:
            self.adapter.detach()
            raise
        self.parameters = self.adapter.parameters()
        self.optimizer = make_optimizer(self.parameters, config)
        self.best = self.adapter.tensors()
        self.history: list[EpochRecord] = []
        self._lengths = [len(example) for example in self.examples]
        self._steps_an_epoch = math.ceil(len(self.examples) / config.batch_size)

    def __enter__(self) -> FineTuning:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *, resume: Mapping[str, Any] | None = None, on_epoch: OnEpoch | None = None) -> TrainingResult:
        """Train until the epochs are done or patience ends, going on from the state ``resume`` where one is given.

        ``on_epoch`` is called after each epoch with its record and the state to resume from.

        Raises:
            ModelError: the state is of another training, or the loss is not a number.
        """
        if resume is not None:
            self._restore(resume)
        while len(self.history) < self.config.epochs and not self._out_of_patience():
            record = self._epoch(len(self.history))
            self.history.append(record)
            if self._best_record() is record:
                self.best = self.adapter.tensors()
            if on_epoch is not None:
                on_epoch(record, self.state())
        self.adapter.load(self.best)
        return self._result()

    @property
    def model(self) -> Any:
        """The base model as it stands: with the adapter on it until `close`."""
        return self.base.model

    def encode(self, rows: Sequence[TrainingRow]) -> list[Example]:
        """Rows as the training sees them."""
        return encode_rows(self.base.tokenizer, rows, self.config.max_tokens)

    def state(self) -> State:
        """Everything needed to go on, as plain containers and tensors that `torch.save` writes."""
        return {
            "version": STATE_VERSION,
            "seed": self.seed,
            "history": [asdict(record) for record in self.history],
            "adapter": self.adapter.tensors(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state() if self.adapter_config.dropout else None,
        }

    def save(self, folder: Path) -> None:
        """Write the best epoch's adapter as a PEFT directory."""
        name = getattr(self.base.model.config, "_name_or_path", "") or self.base.name
        write_adapter(folder, self.adapter_config, self.best, name)

    def close(self) -> None:
        """Take the adapter off: the base model is what it was, bit for bit."""
        self.adapter.detach()

    def validation_loss(self) -> float | None:
        """Weighted mean loss of the validation rows under the present adapter, None without rows."""
        return weighted_loss(self.base, self.validation) if self.validation else None

    def _epoch(self, epoch: int) -> EpochRecord:
        started = time.monotonic()
        # Evaluation mode as far as the base goes: it is frozen, and its own dropout would only blur the adapter.
        for layer in self.adapter.layers.values():
            layer.train()
        if epoch == 0 and self.adapter_config.dropout:
            torch.manual_seed(self.seed)
        rng = np.random.default_rng((self.seed, epoch))
        batches = length_batches(self._lengths, self.config.batch_size, rng)
        losses = torch.stack([self._step(epoch * self._steps_an_epoch + i, b) for i, b in enumerate(batches)])
        train_loss = float(losses.mean())
        if not math.isfinite(train_loss):
            raise ModelError(
                f"the training loss became {train_loss} in epoch {epoch + 1}; lower train.learning_rate "
                f"(it is {self.config.learning_rate:g}) or look for damaged rows"
            )
        for layer in self.adapter.layers.values():
            layer.eval()
        return EpochRecord(
            epoch=epoch + 1,
            steps=len(batches),
            tokens=sum(self._lengths),
            train_loss=train_loss,
            validation_loss=self.validation_loss(),
            learning_rate=self.config.learning_rate * self._rate((epoch + 1) * self._steps_an_epoch - 1),
            seconds=time.monotonic() - started,
        )

    def _step(self, number: int, indices: Sequence[int]) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate(number)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward([self.examples[i] for i in indices])
        term = self.objective.term(self._view(number))
        if term is not None:
            term.backward()  # type: ignore[no-untyped-call]
            loss = loss + term.detach()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm, foreach=True)
        self.optimizer.step()
        return loss

    def _view(self, number: int) -> Step:
        return Step(np.random.default_rng((self.seed, 1, number)), self.parameters, self._mean_loss)

    def _backward(self, examples: Sequence[Example]) -> Tensor:
        total = torch.zeros((), device=self.base.device)
        scale = 1.0 / max(_loss_mass(examples), 1e-12)
        for part in self._parts(examples):
            loss = _weighted_sum(self.base.model, part) * scale
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _mean_loss(self, examples: Sequence[Example]) -> Tensor:
        parts = [_weighted_sum(self.base.model, part) for part in self._parts(examples)]
        return torch.stack(parts).sum() / max(_loss_mass(examples), 1e-12)

    def _parts(self, examples: Sequence[Example]) -> list[Batch]:
        lengths = [len(example) for example in examples]
        groups = bounded(range(len(examples)), lengths, _TOKENS_AT_ONCE.get(self.base.device.type, 8_192))
        pad = self.base.tokenizer.pad_token_id
        return [collate([examples[i] for i in group], pad, self.base.device) for group in groups]

    def _rate(self, step: int) -> float:
        return rate(step, self._steps_an_epoch * self.config.epochs, self.config.warmup_ratio)

    def _best_record(self) -> EpochRecord:
        if self.history[-1].validation_loss is None:
            return self.history[-1]
        return min(self.history, key=lambda record: (record.validation_loss, record.epoch))

    def _out_of_patience(self) -> bool:
        if not self.history or not self.validation:
            return False
        return self.history[-1].epoch - self._best_record().epoch >= self.config.patience

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state.get("version") != STATE_VERSION or state.get("seed") != self.seed:
            raise ModelError(
                f"the training state is of version {state.get('version')} and seed {state.get('seed')}, expected "
                f"{STATE_VERSION} and {self.seed}; remove the checkpoint and train from the start"
            )
        self.adapter.load(state["adapter"])
        self.best = {name: tensor.to(self.base.device) for name, tensor in state["best"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochRecord(**record) for record in state["history"]]
        if state["torch_rng"] is not None:
            torch.set_rng_state(state["torch_rng"])

    def _result(self) -> TrainingResult:
        best = self._best_record()
        return TrainingResult(
            history=tuple(self.history),
            best_epoch=best.epoch,
            validation_loss=best.validation_loss,
            stopped_early=len(self.history) < self.config.epochs,
            steps=sum(record.steps for record in self.history),
            parameters=sum(p.numel() for p in self.parameters.values()),
            tokens=sum(record.tokens for record in self.history),
            seconds=sum(record.seconds for record in self.history),
        )


def weighted_loss(base: BaseModel, examples: Sequence[Example]) -> float:
    """Mean over rows, by their weights, of each row's mean loss a token (nats), without gradient."""
    lengths = [len(example) for example in examples]
    groups = bounded(range(len(examples)), lengths, _TOKENS_AT_ONCE.get(base.device.type, 8_192))
    total = torch.zeros((), dtype=torch.float64, device=base.device)
    with torch.inference_mode():
        for group in groups:
            batch = collate([examples[i] for i in group], base.tokenizer.pad_token_id, base.device)
            total += (row_means(token_losses(base.model, batch), batch) * batch.weights).sum()
    return float(total) / sum(example.weight for example in examples)


def _weighted_sum(model: Any, batch: Batch) -> Tensor:
    return (token_losses(model, batch) * batch.weights[batch.rows]).sum()


def _loss_mass(examples: Sequence[Example]) -> float:
    return sum(e.weight * (len(e) - e.prompt_length) for e in examples)


def _start(initial: Path | None, config: AdapterConfig) -> tuple[AdapterConfig, Mapping[str, Tensor] | None]:
    if initial is None:
        return config, None
    stored = read_adapter(initial)
    if stored.scaling != stored.config().alpha / stored.r:
        raise ModelError(f"{initial} has alpha / r = {stored.scaling:g} with a broken alpha; start from an adapter trained here")
    return stored.config().model_copy(update={"dropout": config.dropout}), stored.tensors


def _weighted(examples: list[Example], weights: Sequence[float] | npt.NDArray[np.float64] | None) -> list[Example]:
    if weights is None:
        return examples
    if len(weights) != len(examples) or min(weights, default=0.0) < 0:
        raise ModelError(
            f"there are {len(weights)} validation weights, the least {min(weights, default=0.0)}, for {len(examples)} "
            f"validation rows; give one weight of 0 or more a row"
        )
    if sum(weights) <= 0:
        return []
    return [Example(e.input_ids, e.labels, float(weight)) for e, weight in zip(examples, weights, strict=True) if weight > 0]
