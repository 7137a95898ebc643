"""Optimiser steps over batches of rows, by schedule (COMPASS, section 4.3).

Key property: a step of several workers is that of one: each adds the gradients of its share, and all take the step with
the sum. Knows of no epochs but their number, keeps no history, and validates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from compass_ray.config import TrainConfig
from compass_ray.models.chat import EncodedExample
from compass_ray.models.objective import LossInputs, Objective
from compass_ray.models.optimizer import learning_rate_factor, make_optimizer
from compass_ray.models.row_losses import RowLosses


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
        """Start anew; ``steps`` are to come in all."""
        self.optimizer = make_optimizer(parameters, config)
        self._parameters, self._losses, self._objective = parameters, losses, objective
        self._config, self._seed, self._steps = config, seed, steps

    def step(self, number: int, examples: Sequence[EncodedExample]) -> Tensor:
        """Take step ``number`` on a batch; returns this worker's part of its loss, float32 without gradient."""
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
