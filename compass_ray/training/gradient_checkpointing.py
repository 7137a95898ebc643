"""Gradient checkpointing: the activations inside a block are computed again on the way back and not kept.

Key property: it works on a base model in evaluation mode, where transformers' own switch does nothing, so no dropout of
the base is turned on by it; the model is what it was at the end. Gradients are those without it.
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
    """Compute every block of ``model`` twice in training, and keep only what goes into it.

    Raises:
        ModelError: a model without the blocks that transformers marks for this.
    """
    blocks = _blocks(model)
    for block in blocks:
        block.forward = partial(_recomputed_forward, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the instance's; the class's own shows again


def _blocks(model: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    found = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no layers that gradient checkpointing knows; set train.gradient_checkpointing=false"
        )
    return found


def _recomputed_forward(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, **named)
