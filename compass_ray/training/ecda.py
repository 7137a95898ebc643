"""The ECDA loss, which limits forgetting in an updated adapter (COMPASS, section 3.3 and appendix D).

    loss = task(D_new) + beta * loss(anchors) + (lambda / 2) sum_j F_j (theta_j - theta_j_prev)^2

F is the diagonal of the empirical Fisher information of the previous adapter. lambda = 0 is rehearsal, beta = 0 is elastic
weight consolidation, and both 0 is naive training. `core.anchors` chooses the anchors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compass_ray.adapters.dora import adapter_parameters, attach_for_training, check_fit
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample
from compass_ray.models.errors import ModelError
from compass_ray.training.collate import collate, token_losses


@dataclass(frozen=True)
class EcdaObjective:
    """Anchors and elastic weight consolidation around a previous adapter."""

    beta: float
    ewc_lambda: float
    anchors: Sequence[EncodedExample]
    fisher: Mapping[str, Tensor]
    previous: Mapping[str, Tensor]
    batch_size: int = 16
    """Anchors drawn per step, without replacement within a step."""

    def draw_replay(self, rng: np.random.Generator) -> tuple[Sequence[EncodedExample], float]:
        """Anchors of this step, and beta."""
        if self.beta == 0 or not self.anchors:
            return (), 0.0
        drawn = rng.choice(len(self.anchors), min(self.batch_size, len(self.anchors)), replace=False)
        return [self.anchors[i] for i in drawn], self.beta

    def penalty(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """The EWC penalty, or None if it is off."""
        if self.ewc_lambda == 0 or not self.fisher:
            return None
        return ewc_penalty(parameters, self.fisher, self.previous, self.ewc_lambda)


def ewc_penalty(
    parameters: Mapping[str, nn.Parameter],
    fisher: Mapping[str, Tensor],
    previous: Mapping[str, Tensor],
    ewc_lambda: float,
) -> Tensor:
    """(lambda / 2) sum_j F_j (theta_j - theta_j_prev)^2 as a scalar with gradient (COMPASS, appendix D).

    Raises:
        ModelError: the Fisher information or the previous parameters belong to another adapter.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    check_fit(shapes, fisher)
    check_fit(shapes, previous)
    parts = [(fisher[name].to(p.device) * (p - previous[name].to(p.device)).square()).sum() for name, p in parameters.items()]
    return 0.5 * ewc_lambda * torch.stack(parts).sum()


def diagonal_fisher(model: nn.Module, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
    """Diagonal empirical Fisher information of the adapter on ``model``, over ``examples``.

    The mean over examples of the squared gradient of the example's log-likelihood (summed over its response tokens), by
    parameter name, float32 on the CPU; 0 for layers that text does not use. `attach_for_training` attaches a stored adapter.

    Raises:
        ModelError: no examples, or no trainable adapter on the model.
    """
    parameters = adapter_parameters(model)
    if not examples or not parameters:
        missing = "an adapter on the model" if examples else "examples; pass anchors or training rows"
        raise ModelError(f"the Fisher information needs {missing}")
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for example in examples:
        _add_squared_gradients(model, example, parameters, sums)
    return {name: (total / len(examples)).cpu() for name, total in sums.items()}


def adapter_fisher(base: BaseModel, folder: Path, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
    """`diagonal_fisher` of the adapter in ``folder``. The base model is restored at the end."""
    with attach_for_training(base.model, read_adapter(folder)):
        return diagonal_fisher(base.model, examples)


def _add_squared_gradients(
    model: nn.Module, example: EncodedExample, parameters: Mapping[str, nn.Parameter], sums: Mapping[str, Tensor]
) -> None:
    batch = collate([example], 0, next(iter(parameters.values())).device)
    loss = token_losses(model, batch).sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        sums[name].addcmul_(gradient, gradient)


def save_fisher(file: Path, fisher: Mapping[str, Tensor]) -> None:
    """Write the Fisher information as safetensors."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in fisher.items()}, file, {"format": "pt"})


def load_fisher(file: Path) -> dict[str, Tensor]:
    """Read what `save_fisher` wrote.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        fisher: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is damaged ({error}); remove {file.parent} and run again") from None
    return fisher
