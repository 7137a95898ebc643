"""Optimizer steps over batches of rows, with a learning rate schedule (COMPASS, section 4.3).

A step of several workers equals that of one: each adds the gradients of its share, and all apply the sum. Keeps no history
and validates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compass_ray.config import TrainConfig
from compass_ray.models.chat_template import EncodedExample
from compass_ray.training.losses import RowLosses


@dataclass(frozen=True)
class LossInputs:
    """Inputs of an objective in one optimizer step."""

    rng: np.random.Generator
    """Seeded by run seed and step number, so that a resumed run draws the same."""
    parameters: Mapping[str, nn.Parameter]
    mean_loss: Callable[[Sequence[EncodedExample]], Tensor]
    """Weighted mean loss per token of some rows, with gradient.

    With several workers each gets its own value, and the mean over workers is the loss. So a term must be linear in it.
    """


class Objective(Protocol):
    """A term added to the loss of every step."""

    def term(self, step: LossInputs) -> Tensor | None:
        """The term with gradient, or None."""


class TaskObjective:
    """Only the loss of the training rows."""

    def term(self, step: LossInputs) -> Tensor | None:
        """No additional term."""
        return None


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on the low-rank factors, and on the magnitude vectors only if ``config.decay_magnitude``."""
    magnitudes = [p for name, p in parameters.items() if name.endswith("lora_magnitude_vector")]
    factors = [p for name, p in parameters.items() if not name.endswith("lora_magnitude_vector")]
    groups = [
        {"params": factors, "weight_decay": config.weight_decay},
        {"params": magnitudes, "weight_decay": config.weight_decay if config.decay_magnitude else 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, foreach=True
    )


def learning_rate_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Fraction of the peak learning rate at ``step`` of ``total``: linear warm-up, then half a cosine to zero.

    >>> [round(learning_rate_factor(step, 10, 0.2), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    warmup = round(total * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * done))


class AdapterOptimizer:
    """AdamW on an adapter's parameters, with the objective's term in every step."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        losses: RowLosses,
        objective: Objective,
        config: TrainConfig,
        *,
        seed: int,
        steps: int,
    ) -> None:
        """Create the optimizer for a training of ``steps`` steps in total."""
        self.optimizer = make_optimizer(parameters, config)
        self._parameters, self._losses, self._objective = parameters, losses, objective
        self._config, self._seed, self._steps = config, seed, steps

    def step(self, number: int, examples: Sequence[EncodedExample]) -> Tensor:
        """Take step ``number`` on a batch. Return this worker's part of its loss, float32 without gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._losses.backward(examples)
        workers = self._losses.group
        term = self._objective.term(self._loss_inputs(number))
        if term is not None:
            term = term / workers.world_size
            term.backward()  # type: ignore[no-untyped-call]
            loss = loss + term.detach()
        workers.all_reduce_gradients(list(self._parameters.values()))
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._config.clip_norm, foreach=True)
        self.optimizer.step()
        return loss

    def learning_rate(self, number: int) -> float:
        """The learning rate of step ``number``."""
        return self._config.learning_rate * learning_rate_factor(number, self._steps, self._config.warmup_ratio)

    def _loss_inputs(self, number: int) -> LossInputs:
        return LossInputs(np.random.default_rng((self._seed, 1, number)), self._parameters, self._losses.mean_loss)
