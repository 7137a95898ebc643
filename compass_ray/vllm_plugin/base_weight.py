"""The base weight W of a layer on this rank: norms of its rows, and A W^T, whatever vLLM made of W.

vLLM packs or quantises weights after loading. A weight that is not a plain matrix is read by passing rows of the identity
through the layer, which gives its columns. The norms are read once for each layer and kept. A rank on which reading fails still
takes part in the sums over all ranks, so that no other rank waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from compass_ray.vllm_plugin.engine_types import EngineTypes, LoraLinear

COLUMNS = 512
"""Columns that are read at a time: float32[out, 512] is the memory that this needs."""


class BaseWeight:
    """W of one layer."""

    def __init__(self, layer: LoraLinear, types: EngineTypes) -> None:
        """Read nothing yet."""
        self._layer = layer
        self._types = types
        self._method = layer.base_layer.quant_method
        self._inputs = int(layer.lora_a_stacked[0].shape[-1])
        self._outputs = sum(layer.output_slices)
        self._squared: Tensor | None = None

    def squared_norms(self) -> Tensor:
        """||w||^2 of each row, float32[out]; over the columns of all ranks. The first call reads W."""
        if self._squared is None:
            (self._squared,) = self._sum_over_ranks(lambda: [self._local_squared_norms()], [(self._outputs,)])
        return self._squared

    def multiply(self, factors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """A W^T, float32[r, out], of each A [r, in]; over the columns of all ranks."""
        used = [a for a in factors if a is not None]
        products = iter(self._sum_over_ranks(lambda: self._local_products(used), [(len(a), self._outputs) for a in used]))
        return [None if a is None else next(products) for a in factors]

    def _local_squared_norms(self) -> Tensor:
        total = torch.zeros(self._outputs, device=self._layer.device)
        for _, columns in self._read_columns():
            total += columns.square().sum(1)
        return total

    def _local_products(self, factors: Sequence[Tensor]) -> list[Tensor]:
        local = [self._local_columns(a).to(self._layer.device).contiguous() for a in factors]
        return [self._apply(a) for a in local] if self._is_packed() else self._multiply_columns(local)

    def _multiply_columns(self, factors: Sequence[Tensor]) -> list[Tensor]:
        products = [a.new_zeros(a.shape[0], self._outputs) for a in factors]
        for part, columns in self._read_columns():
            for a, product in zip(factors, products, strict=True):
                product += a[:, part] @ columns.T
        return products

    def _read_columns(self) -> Iterator[tuple[slice, Tensor]]:
        """W a few columns at a time: their positions and float32[out, columns]."""
        for start in range(0, self._inputs, COLUMNS):
            part = slice(start, min(start + COLUMNS, self._inputs))
            yield part, self._columns(part)

    def _columns(self, part: slice) -> Tensor:
        if self._is_plain():
            columns: Tensor = self._layer.base_layer.weight[:, part]
            return columns.float()
        count = part.stop - part.start
        unit = torch.zeros(count, self._inputs, device=self._layer.device)
        unit[torch.arange(count), torch.arange(part.start, part.stop)] = 1
        return self._apply(unit).T

    def _apply(self, x: Tensor) -> Tensor:
        base: Any = self._layer.base_layer
        y: Tensor = self._method.apply(base, x.to(base.params_dtype), None)
        return y.float()

    def _is_plain(self) -> bool:
        shape = tuple(self._layer.base_layer.weight.shape) if self._is_unquantized() else ()
        return shape == (self._outputs, self._inputs)

    def _is_packed(self) -> bool:
        """On a CPU vLLM replaces a weight by one that only its kernel reads. A then passes through the kernel as it is."""
        return self._is_unquantized() and not self._is_plain()

    def _is_unquantized(self) -> bool:
        return isinstance(self._method, self._types.unquantized)

    def _local_columns(self, a: Tensor) -> Tensor:
        if self._layer.tp_size == 1 or not self._is_row_parallel():
            return a
        columns: Tensor = self._layer.slice_lora_a(a)
        return columns

    def _is_row_parallel(self) -> bool:
        return isinstance(self._layer.base_layer, self._types.row_parallel)

    def _sum_over_ranks(self, read: Callable[[], list[Tensor]], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Sums of what each rank reads, of the given shapes. A rank that fails adds zeros, and raises after the sums."""
        if self._layer.tp_size == 1 or not self._is_row_parallel():
            return read()
        failure: Exception | None = None
        try:
            parts = read()
        except Exception as error:
            failure, parts = error, [torch.zeros(shape, device=self._layer.device) for shape in shapes]
        sums = [self._types.all_reduce(part) for part in parts]
        if failure is not None:
            raise failure
        return sums
