"""Optimizer steps over batches of rows, with a learning rate schedule (COMPASS, section 4.3).

A step of several workers equals that of one: each adds the gradients of its share, and all apply the sum. Keeps no history
and validates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compass_ray.config import TrainConfig
from compass_ray.models.chat_template import EncodedExample
from compass_ray.training.losses import RowLosses


class Objective(Protocol):
    """What an optimizer step minimizes in addition to the loss of its training rows."""

    def draw_replay(self, rng: np.random.Generator) -> tuple[Sequence[EncodedExample], float]:
        """Rows whose weighted mean loss per token is added in this step, and the factor of that loss; no rows adds nothing.

        ``rng`` is seeded by run seed and step number, so that a resumed run draws the same rows.
        """

    def penalty(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """A term of the adapter's parameters with gradient, or None."""


class TaskObjective:
    """Only the loss of the training rows."""

    def draw_replay(self, rng: np.random.Generator) -> tuple[Sequence[EncodedExample], float]:
        """No rows."""
        return (), 0.0

    def penalty(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """No term."""
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
    """AdamW on an adapter's parameters, with the objective's replay and penalty in every step."""

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
        loss = self._losses.backward(examples) + self._add_replay(number) + self._add_penalty()
        self._losses.group.all_reduce_gradients(list(self._parameters.values()))
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._config.clip_norm, foreach=True)
        self.optimizer.step()
        return loss

    def learning_rate(self, number: int) -> float:
        """The learning rate of step ``number``."""
        return self._config.learning_rate * learning_rate_factor(number, self._steps, self._config.warmup_ratio)

    def _add_replay(self, number: int) -> Tensor:
        rows, factor = self._objective.draw_replay(np.random.default_rng((self._seed, 1, number)))
        return self._losses.backward(rows, factor)

    def _add_penalty(self) -> Tensor:
        """This worker's part of the penalty. Workers have equal parameters, so each adds an equal part."""
        term = self._objective.penalty(self._parameters)
        if term is None:
            return torch.zeros((), device=self._losses.device)
        part = term / self._losses.group.world_size
        part.backward()  # type: ignore[no-untyped-call]
        return part.detach()
