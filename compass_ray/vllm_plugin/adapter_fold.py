"""The fold of one adapter into the layers of an engine: planned first, without communication, then computed on all ranks.

A plan checks everything that can be wrong with an adapter. So ranks agree before the first of them waits for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compass_ray.vllm_plugin.base_weight import BaseWeight
from compass_ray.vllm_plugin.engine_types import EngineTypes, LoraLinear, LoraManager
from compass_ray.vllm_plugin.errors import DoraAdapterError
from compass_ray.vllm_plugin.factors import DoraFactors
from compass_ray.vllm_plugin.fold import FoldedSlice, fold_slice


@dataclass(frozen=True)
class SliceFold:
    """What is folded into one slice of a layer."""

    module: str
    """vLLM's name of the slice, such as ``model.layers.0.self_attn.q_proj``."""
    factors: DoraFactors
    rows: Tensor
    """Rows of the checkpoint that this rank has, int64."""


@dataclass(frozen=True)
class LayerFold:
    """What is folded into one layer: one entry for each slice, None for a slice without adapter."""

    name: str
    layer: LoraLinear
    slices: tuple[SliceFold | None, ...]


@dataclass(frozen=True)
class FoldedAdapter:
    """Result of a fold, on the CPU."""

    b_factors: Mapping[str, Tensor]
    """float32[out, r] by module."""
    gains: Mapping[str, Tensor]
    """s - 1, float32[out of this rank], by layer."""


def plan_fold(manager: LoraManager, factors: Mapping[str, DoraFactors], types: EngineTypes) -> list[LayerFold]:
    """Find the layer of each module, in the order of the engine's layers.

    Raises:
        DoraAdapterError: a module is not a linear layer, or does not exist on any rank, or has another shape than the base
            model's.
    """
    places = _find_places(manager)
    unknown = [module for module in factors if module not in places and not _is_on_another_rank(manager, module, types)]
    if unknown:
        raise DoraAdapterError(f"The base model has no layer for {', '.join(sorted(unknown)[:4])} ({len(unknown)} layers).")
    names = {places[module] for module in factors if module in places}
    return [_plan_layer(manager, name, factors, types) for name in manager.modules if name in names]


def _find_places(manager: LoraManager) -> dict[str, str]:
    """Layer of each module: a packed layer has several."""
    return {module: name for name in manager.modules for module in _modules_of(manager, name)}


def _modules_of(manager: LoraManager, name: str) -> list[str]:
    return list(manager.packed_modules.get(name, [name]))


def _is_on_another_rank(manager: LoraManager, module: str, types: EngineTypes) -> bool:
    part = manager.model
    for name in module.split("."):
        if isinstance(part, types.missing):
            return True
        part = getattr(part, name, None)
    return isinstance(part, types.missing)


def _plan_layer(manager: LoraManager, name: str, factors: Mapping[str, DoraFactors], types: EngineTypes) -> LayerFold:
    layer, modules = manager.modules[name], _modules_of(manager, name)
    if type(layer) not in types.linears or len(modules) != layer.n_slices:
        raise DoraAdapterError(f"DoRA on {name} is not supported: its layer is a {type(layer).__name__}.")
    if layer.tp_size > 1 and _has_shared_rows(layer):
        raise DoraAdapterError(
            f"DoRA on {name} is not supported with tensor parallelism: its layer is fused or has shared heads."
        )
    slices = [_plan_slice(layer, i, module, factors.get(module), types) for i, module in enumerate(modules)]
    return LayerFold(name, layer, tuple(slices))


def _has_shared_rows(layer: Any) -> bool:
    """One module for several outputs (Phi-3), or heads of keys and values on several ranks: not exact on two ranks yet."""
    is_fused = layer.n_slices == 1 and len(getattr(layer.base_layer, "output_sizes", ())) > 1
    return is_fused or getattr(layer.base_layer, "num_kv_head_replicas", 1) > 1


def _plan_slice(layer: Any, i: int, module: str, factors: DoraFactors | None, types: EngineTypes) -> SliceFold | None:
    if factors is None:
        return None
    expected = (_checkpoint_rows(layer, i, types), int(layer.base_layer.input_size))
    found = (factors.b.shape[0], factors.a.shape[1])
    if found != expected:
        raise DoraAdapterError(
            f"{module} has the shape {expected} in the base model and {found} in the adapter. It was made for another model."
        )
    max_rank = layer.lora_b_stacked[i].shape[-1]
    if factors.a.shape[0] > max_rank:
        raise DoraAdapterError(f"{module} has rank {factors.a.shape[0]}, above max_lora_rank {max_rank}.")
    return SliceFold(module, factors, _find_rows(layer, i, len(factors.b)))


def _checkpoint_rows(layer: Any, i: int, types: EngineTypes) -> int:
    """Rows of slice ``i`` over all ranks. Heads of keys and values that several ranks share count once."""
    base: Any = layer.base_layer
    is_qkv = isinstance(base, types.qkv)
    if is_qkv:
        heads = base.total_num_kv_heads
        rows = [base.total_num_heads * base.head_size, heads * base.head_size, heads * base.v_head_size]
        return int(sum(rows) if layer.n_slices == 1 else rows[i])
    return int(base.output_size if layer.n_slices == 1 else base.output_sizes[i])


def _find_rows(layer: LoraLinear, i: int, rows: int) -> Tensor:
    """Rows of the checkpoint that this rank has of slice ``i``: what vLLM itself cuts out of B."""
    numbers = torch.arange(rows)[:, None]
    if layer.tp_size == 1:
        return numbers[:, 0]
    if layer.n_slices == 1:
        own: Tensor = layer.slice_lora_b(numbers)
    else:
        own = layer.slice_lora_b([numbers if j == i else None for j in range(layer.n_slices)])[i]
    return own[:, 0]


def compute_fold(plan: Iterable[LayerFold], weights: Mapping[str, BaseWeight]) -> FoldedAdapter:
    """Fold all layers. Each rank calls it at the same time with the same layers.

    Raises:
        DoraAdapterError: a scale is not finite.
    """
    b_factors: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    for fold in plan:
        folded = _fold_layer(fold, weights[fold.name])
        gains[fold.name] = _join_gains(fold.layer.output_slices, folded)
        b_factors |= {part.module: done.b for part, done in zip(fold.slices, folded, strict=True) if part and done}
    damaged = [name for name, gain in gains.items() if not bool(gain.isfinite().all())]
    if damaged:
        raise DoraAdapterError(f"The scale of {damaged[0]} is not finite. The adapter is damaged.")
    return FoldedAdapter(b_factors, gains)


def _fold_layer(fold: LayerFold, weight: BaseWeight) -> list[FoldedSlice | None]:
    squared = torch.split(weight.squared_norms(), list(fold.layer.output_slices))
    products = weight.multiply([part.factors.a if part else None for part in fold.slices])
    starts = [sum(fold.layer.output_slices[:i]) for i in range(len(fold.slices))]
    return [
        fold_slice(part.factors, part.rows, own, product[:, start : start + len(own)]) if part and product is not None else None
        for part, own, product, start in zip(fold.slices, squared, products, starts, strict=True)
    ]


def _join_gains(sizes: Iterable[int], folded: Iterable[FoldedSlice | None]) -> Tensor:
    """One gain for each output of the layer; zero where there is no adapter."""
    return torch.cat([torch.zeros(size) if done is None else done.gain for size, done in zip(sizes, folded, strict=True)])
