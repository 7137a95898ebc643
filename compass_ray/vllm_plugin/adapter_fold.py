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

_ACTIVATION_SCALES = ("input_scale", "input_global_scale", "input_global_scale_inv", "act_global_scale")
"""Attributes of vLLM's quantised layers whose activations have a constant scale (fp8, int8, NVFP4)."""


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
    layer_by_module = _find_layers(manager)
    unknown = [name for name in factors if name not in layer_by_module and not _is_on_another_rank(manager, name, types)]
    if unknown:
        raise DoraAdapterError(f"The base model has no layer for {', '.join(sorted(unknown)[:4])} ({len(unknown)} layers).")
    names = {layer_by_module[module] for module in factors if module in layer_by_module}
    return [_plan_layer(manager, name, factors, types) for name in manager.modules if name in names]


def _find_layers(manager: LoraManager) -> dict[str, str]:
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
    if scale := _find_activation_scale(layer.base_layer):
        raise DoraAdapterError(f"DoRA on {name} is not supported: its inputs are quantised with a constant scale ({scale}).")
    slices = [_plan_slice(layer, i, module, factors.get(module), types) for i, module in enumerate(modules)]
    return LayerFold(name, layer, tuple(slices))


def _find_activation_scale(base: Any) -> str | None:
    """Name of a constant scale of the layer's inputs. It is not made for rows of the identity, so norms would be wrong."""
    return next((name for name in _ACTIVATION_SCALES if getattr(base, name, None) is not None), None)


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

    A rank on which a layer fails goes on with the next one, because the other ranks wait for its part of their sums.

    Raises:
        DoraAdapterError: a scale is not finite.
        Exception: the first error of a layer, after the last layer.
    """
    b_factors: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    failures: list[Exception] = []
    for fold in plan:
        try:
            folded = _fold_layer(fold, weights[fold.name])
        except Exception as error:
            failures.append(error)
            continue
        gains[fold.name] = _join_gains(fold.layer.output_slices, folded)
        b_factors |= {part.module: done.b for part, done in zip(fold.slices, folded, strict=True) if part and done}
    if failures:
        raise failures[0]
    damaged = [name for name, gain in gains.items() if not bool(gain.isfinite().all())]
    if damaged:
        raise DoraAdapterError(f"The scale of {damaged[0]} is not finite. The adapter is damaged.")
    return FoldedAdapter(b_factors, gains)


def _fold_layer(fold: LayerFold, weight: BaseWeight) -> list[FoldedSlice | None]:
    try:
        norms = weight.squared_norms()
    finally:  # other ranks add up the products also if the norms fail here
        products = weight.multiply([part.factors.a if part else None for part in fold.slices])
    squared = torch.split(norms, list(fold.layer.output_slices))
    starts = [sum(fold.layer.output_slices[:i]) for i in range(len(fold.slices))]
    return [
        fold_slice(part.factors, part.rows, own, product[:, start : start + len(own)]) if part and product is not None else None
        for part, own, product, start in zip(fold.slices, squared, products, starts, strict=True)
    ]


def _join_gains(sizes: Iterable[int], folded: Iterable[FoldedSlice | None]) -> Tensor:
    """One gain for each output of the layer; zero where there is no adapter."""
    return torch.cat([torch.zeros(size) if done is None else done.gain for size, done in zip(sizes, folded, strict=True)])
