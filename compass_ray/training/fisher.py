"""Diagonal Fisher information of an adapter: how much its outputs depend on each parameter (COMPASS, appendix D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compass_ray.adapters.dora import adapter_parameters, attach_for_training
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample
from compass_ray.models.errors import ModelError
from compass_ray.models.lm_head import sample_tokens
from compass_ray.training.collate import Batch, collate, token_losses

FisherKind = Literal["empirical", "sampled"]
_SEED = 0
"""Seed of the sampled tokens, so that a repeated computation gives the same numbers."""


def diagonal_fisher(model: nn.Module, examples: Sequence[EncodedExample], kind: FisherKind = "empirical") -> dict[str, Tensor]:
    """Diagonal Fisher information of the adapter on ``model``, over ``examples``.

    The mean over examples of the squared gradient of the example's log-likelihood (summed over its response tokens), by
    parameter name, float32 on the CPU; 0 for layers that text does not use. `attach_for_training` attaches a stored adapter.

    ``empirical`` takes the response as it is. ``sampled`` estimates the true Fisher information: the model draws each token
    itself, so memorized rows have information too (Kunstner et al., arXiv 1905.12558).

    Raises:
        ModelError: no examples, or no trainable adapter on the model.
    """
    parameters = adapter_parameters(model)
    if not examples or not parameters:
        missing = "an adapter on the model" if examples else "examples; pass anchors or training rows"
        raise ModelError(f"the Fisher information needs {missing}")
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    device = next(iter(parameters.values())).device
    generator = torch.Generator(device).manual_seed(_SEED)
    for example in examples:
        batch = collate([example], 0, device)
        if kind == "sampled":
            batch = replace(
                batch, targets=sample_tokens(model, batch.positions, generator, input_ids=batch.input_ids, use_cache=False)
            )
        _add_squared_gradients(model, batch, parameters, sums)
    return {name: (total / len(examples)).cpu() for name, total in sums.items()}


def adapter_fisher(
    base: BaseModel, folder: Path, examples: Sequence[EncodedExample], kind: FisherKind = "empirical"
) -> dict[str, Tensor]:
    """`diagonal_fisher` of the adapter in ``folder``. The base model is restored at the end."""
    with attach_for_training(base.model, read_adapter(folder)):
        return diagonal_fisher(base.model, examples, kind)


def divide_by_trace(fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The Fisher information divided by its sum over all parameters; unchanged if that is 0.

    The penalty is then lambda / 2 times a weighted mean of squared changes, so one lambda means the same for models and adapters
    of every size.
    """
    trace = sum(float(tensor.double().sum()) for tensor in fisher.values())
    return {name: tensor / trace if trace else tensor for name, tensor in fisher.items()}


def _add_squared_gradients(
    model: nn.Module, batch: Batch, parameters: Mapping[str, nn.Parameter], sums: Mapping[str, Tensor]
) -> None:
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
