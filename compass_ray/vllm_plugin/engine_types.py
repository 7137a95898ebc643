"""The parts of vLLM's objects that the plugin uses, as Protocols, and vLLM's classes in one object, so tests need no vLLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

LINEAR_LAYERS = (
    "ColumnParallelLinearWithLoRA",
    "MergedColumnParallelLinearWithLoRA",
    "MergedQKVParallelLinearWithLoRA",
    "QKVParallelLinearWithLoRA",
    "ReplicatedLinearWithLoRA",
    "RowParallelLinearWithLoRA",
)
"""Classes of `vllm.lora.layers` that can have a DoRA adapter."""


class LoraLinear(Protocol):
    """vLLM's `BaseLinearLayerWithLoRA`, after it was replaced in the model."""

    base_layer: Any
    lora_a_stacked: tuple[Tensor, ...]
    """[slots, 1, max rank, in] of each slice."""
    lora_b_stacked: tuple[Tensor, ...]
    """[slots, 1, out, max rank] of each slice."""
    output_slices: tuple[int, ...]
    n_slices: int
    tp_size: int
    device: Any
    punica_wrapper: Any

    def slice_lora_a(self, lora_a: Any) -> Any:
        """Columns of A on this rank."""

    def slice_lora_b(self, lora_b: Any) -> Any:
        """Rows of B on this rank."""


class LoraManager(Protocol):
    """vLLM's `LoRAModelManager`."""

    model: Any
    modules: Mapping[str, Any]
    packed_modules: Mapping[str, Sequence[str]]
    lora_index_to_id: Sequence[int | None]


@dataclass(frozen=True)
class EngineTypes:
    """Classes and functions of vLLM that the fold needs."""

    linears: tuple[type, ...]
    """Layers with adapters that the plugin knows. A subclass may compute in another way, so it is not one of them."""
    qkv: type
    """`QKVParallelLinear`."""
    row_parallel: type
    """`RowParallelLinear`: its layers hold a part of the columns on each rank."""
    unquantized: type
    """`UnquantizedLinearMethod`."""
    missing: type
    """`PPMissingLayer`: a layer on another rank of a pipeline."""
    all_reduce: Callable[[Tensor], Tensor]
    """Sum over the ranks of tensor parallelism."""


def load_engine_types() -> EngineTypes:
    """Import them from vLLM."""
    from vllm.distributed import tensor_model_parallel_all_reduce
    from vllm.lora import layers
    from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear, UnquantizedLinearMethod
    from vllm.model_executor.models.utils import PPMissingLayer

    return EngineTypes(
        tuple(getattr(layers, name) for name in LINEAR_LAYERS),
        QKVParallelLinear,
        RowParallelLinear,
        UnquantizedLinearMethod,
        PPMissingLayer,
        tensor_model_parallel_all_reduce,
    )
