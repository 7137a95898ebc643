"""Layers with the attributes of vLLM's, in plain torch: unsharded, packed, opaque, and parts of a layer on two ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from compass_ray.vllm_plugin.engine_types import EngineTypes


class LinearMethod:
    def apply(self, base: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        y = x @ base.kernel.T
        return y if bias is None else y + bias


class Unquantized(LinearMethod):
    """Its weight may be a plain matrix."""


class Quantized(LinearMethod):
    """Not one of `EngineTypes.unquantized`: its weight can only be read through the layer."""


class Broken(Quantized):
    """No memory is left for a pass through the layer."""

    def apply(self, base: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        raise MemoryError("no memory is left")


class Qkv(SimpleNamespace):
    """A base layer of queries, keys and values."""


class RowParallel(SimpleNamespace):
    """A base layer with a part of the columns on each rank."""


class Missing(nn.Module):
    """A layer on another rank of a pipeline."""


class Punica:
    def __init__(self, tokens: int) -> None:
        self._token_lora_indices = torch.full((tokens,), 7)


class Layer(nn.Module):
    """A linear layer with slots for adapters; `tp_rank` is one of `tp_size`."""

    def __init__(self, base: Any, slices: Sequence[int], slots: int = 2, rank: int = 4, **sharding: int) -> None:
        super().__init__()
        columns = base.kernel.shape[1]
        self.base_layer = base
        self.output_slices = tuple(slices)
        self.n_slices = len(slices)
        self.tp_size, self.tp_rank = sharding.get("tp_size", 1), sharding.get("tp_rank", 0)
        self.device = torch.device("cpu")
        self.lora_a_stacked = tuple(torch.zeros(slots, 1, rank, columns) for _ in slices)
        self.lora_b_stacked = tuple(torch.zeros(slots, 1, size, rank) for size in slices)
        self.punica_wrapper: Any = Punica(8)

    def slice_lora_a(self, a: Tensor) -> Tensor:
        return a.chunk(self.tp_size, dim=1)[self.tp_rank]

    def slice_lora_b(self, b: Any) -> Any:
        if isinstance(self.base_layer, RowParallel):
            return b
        if isinstance(b, list):
            return [None if part is None else part.chunk(self.tp_size)[self.tp_rank] for part in b]
        return b.chunk(self.tp_size)[self.tp_rank]

    def set_mapping(self, punica_wrapper: Any) -> None:
        self.punica_wrapper = punica_wrapper

    def reset_lora(self, index: int) -> None:
        for stacked in (*self.lora_a_stacked, *self.lora_b_stacked):
            stacked[index] = 0

    def set_lora(self, slot: int, factors: Sequence[tuple[Tensor, Tensor]]) -> None:
        for i, (a, b) in enumerate(factors):
            self.lora_a_stacked[i][slot, 0, : len(a)] = a
            self.lora_b_stacked[i][slot, 0, :, : b.shape[1]] = b

    def _get_quant_method(self) -> Any:
        return self.base_layer.quant_method

    def _apply_lora_to_output(self, x: Tensor, output: Tensor) -> Tensor:
        """vLLM's low-rank term, one token at a time."""
        slots = self.punica_wrapper._token_lora_indices[: len(x)]
        start = 0
        for a, b, size in zip(self.lora_a_stacked, self.lora_b_stacked, self.output_slices, strict=True):
            low = torch.einsum("ti,tri->tr", x, a[slots, 0])
            output[:, start : start + size] += torch.einsum("tr,tor->to", low, b[slots, 0]) * (slots >= 0)[:, None]
            start += size
        return output


class OtherLayer(Layer):
    """A subclass, which may compute in another way."""


def make_base(weight: Tensor, slices: Sequence[int], kind: type = SimpleNamespace, **attributes: Any) -> Any:
    """A base layer that holds ``weight`` as a plain matrix."""
    return kind(
        kernel=weight,
        weight=weight,
        quant_method=Unquantized(),
        params_dtype=weight.dtype,
        input_size=attributes.pop("input_size", weight.shape[1]),
        output_size=attributes.pop("output_size", weight.shape[0]),
        output_sizes=list(slices),
        bias=None,
        skip_bias_add=False,
        **attributes,
    )


def make_types(all_reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> EngineTypes:
    """The stand-ins' types."""
    return EngineTypes((Layer,), Qkv, RowParallel, Unquantized, Missing, all_reduce)


@dataclass
class Ranks:
    """Sum over two threads, each of which is one rank."""

    size: int = 2
    _parts: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._barrier = threading.Barrier(self.size, timeout=30)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        self._parts[threading.get_ident()] = tensor
        self._barrier.wait()
        total = torch.stack(list(self._parts.values())).sum(0)
        self._barrier.wait()
        return total
