"""Fold a stored adapter, layer by layer, for the base model that will serve it.

Every tensor is accounted for. A layer that cannot be served is rejected by name, and so is an adapter that lacks a layer it
names. Changes no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from compass_ray.adapters.folded_layer import LayerWeights, check_shapes, fold_layer
from compass_ray.adapters.peft_io import StoredAdapter
from compass_ray.engine.multi_adapter_linear import MultiAdapterLinear
from compass_ray.engine.packed_linear import LinearLayer, PackedLinear
from compass_ray.models.errors import ModelError

_PREFIX = "base_model.model."
_PARTS = {".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_magnitude_vector": "m"}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class PreparedAdapter:
    """An adapter ready to serve: its folded weights by module path."""

    layers: Mapping[str, LayerWeights]

    @property
    def nbytes(self) -> int:
        """Bytes of the resident adapter."""
        return sum(weights.nbytes for weights in self.layers.values())


def fold_adapter(model: Any, stored: StoredAdapter) -> PreparedAdapter:
    """Fold every layer of ``stored`` for ``model``, a transformers causal language model, wrapped by `AdapterManager` or not.

    Raises:
        ModelError: the model lacks a layer, a layer cannot be served, or tensors are missing or unknown.
    """
    parts = _group_by_layer(stored.tensors)
    _check_complete(model, stored, parts)
    return PreparedAdapter({path: _fold(model, path, each, stored) for path, each in parts.items()})


def check_adapter(model: Any, stored: StoredAdapter) -> None:
    """Check that ``stored`` fits ``model``, which may have no storage, without folding it.

    Raises:
        ModelError: as `fold_adapter`, except for scales that are not finite.
    """
    parts = _group_by_layer(stored.tensors)
    _check_complete(model, stored, parts)
    for path, each in parts.items():
        _check_parts(path, each, stored)
        check_shapes(find_servable_layer(model, path).weight, each["a"], each["b"], each.get("m"))


def _group_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        ending = next((end for end in _PARTS if name.endswith(end)), None)
        if ending is None or not name.startswith(_PREFIX):
            raise ModelError(f"the adapter has tensor {name}, which is neither LoRA nor DoRA on a linear layer; train without it")
        layers.setdefault(name[len(_PREFIX) : -len(ending)], {})[_PARTS[ending]] = tensor
    return layers


def _check_complete(model: Any, stored: StoredAdapter, layers: Mapping[str, object]) -> None:
    if stored.is_partial:
        return
    ends = tuple(f".{name}" for name in stored.target_modules)
    inside = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, MultiAdapterLinear))
    named = [path for path, _ in model.named_modules() if f".{path}".endswith(ends) and not path.startswith(inside)]
    missing = [path for path in named if path not in layers]
    if missing:
        raise ModelError(f"the adapter lacks {missing[0]} and {len(missing) - 1} more of its layers; copy or train it again")


def _fold(model: Any, path: str, parts: Mapping[str, Tensor], stored: StoredAdapter) -> LayerWeights:
    _check_parts(path, parts, stored)
    return fold_layer(find_servable_layer(model, path).weight, parts["a"], parts["b"], parts.get("m"), stored.scaling)


def _check_parts(path: str, parts: Mapping[str, Tensor], stored: StoredAdapter) -> None:
    if not {"a", "b"} <= parts.keys() or ("m" in parts) != stored.use_dora:
        raise ModelError(f"the adapter has only {', '.join(sorted(parts))} for {path}; it is damaged, copy it again")
    if parts["a"].shape[:1] != (stored.r,):
        raise ModelError(f"{path} has factors {tuple(parts['a'].shape)}, but the rank is {stored.r}; the adapter is damaged")


def find_servable_layer(model: Any, path: str) -> LinearLayer:
    """The linear layer at ``path`` of a causal language model.

    Raises:
        ModelError: there is no such layer, or adapters on it cannot be served in one batch.
    """
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise ModelError(f"the base model has no layer {path}; the adapter was made for another base model") from None
    if isinstance(module, MultiAdapterLinear):
        return module.base
    if not _is_plain_linear(module):
        kind = f"{type(module).__name__} of {getattr(getattr(module, 'weight', None), 'dtype', 'no weight')}"
        raise ModelError(f"layer {path} is a {kind}; only plain floating-point linear layers can be served")
    if module is model.get_output_embeddings():
        raise ModelError(f"layer {path} is the output layer, which gets only the tokens to predict; train the adapter without it")
    if "experts" in path.split("."):
        raise ModelError(f"layer {path} is an expert's, which gets only some tokens; train only the attention layers")
    return module


def _is_plain_linear(module: nn.Module) -> TypeGuard[LinearLayer]:
    if type(module) is nn.Linear:
        return type(module.weight) is nn.Parameter and module.weight.dtype in _DTYPES
    return isinstance(module, PackedLinear)
