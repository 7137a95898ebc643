"""Gradient checkpointing: recompute the activations of each block in the backward pass instead of storing them.

It works on a base model in evaluation mode, where transformers' own switch has no effect. So it enables no dropout of the
base. The model is restored at the end. Gradients do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from compass_ray.models.errors import ModelError


@contextmanager
def gradient_checkpointing(model: nn.Module) -> Iterator[None]:
    """Store only the inputs of every block of ``model`` and compute each block twice in training.

    Raises:
        ModelError: the model has no blocks that transformers marks for checkpointing.
    """
    blocks = _blocks(model)
    for block in blocks:
        block.forward = partial(_recomputed_forward, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # removes the instance attribute, so the class method is used again


def _blocks(model: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ModelError(
            f"{type(model).__name__} has no layers that support gradient checkpointing; set train.gradient_checkpointing=false"
        )
    return blocks


def _recomputed_forward(forward: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **kwargs)
    return checkpoint(forward, *inputs, use_reentrant=False, **kwargs)
