"""Add adapters to a layer's output on a GPU with two kernel launches, for any number of adapters and tokens.

Used automatically where the layer is on a CUDA device and Triton can be imported. `MultiAdapterLinear.apply_torch` computes
the same. The speed on a GPU is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import util

import torch
from torch import Tensor

from compass_ray.adapters.folded_layer import LayerWeights
from compass_ray.engine.adapter_mapping import AdapterMapping
from compass_ray.engine.triton.tiles import TILE

_SPLIT, _INNER, _OUTER = 512, 64, 64


@dataclass(frozen=True)
class WeightTable:
    """Addresses of a layer's adapters by slot, int64[slots], and their ranks, int32[slots]; 0 for an empty slot."""

    a: Tensor
    b: Tensor
    shift: Tensor
    rank: Tensor
    max_rank: int
    """A power of two, at least 16 and at least every rank."""


def is_supported(y: Tensor) -> bool:
    """Whether the kernels run on the device of this tensor."""
    return y.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return util.find_spec("triton") is not None


def build_weight_table(adapters: Mapping[int, LayerWeights], slots: int, device: torch.device) -> WeightTable:
    """The table of ``adapters`` for slots below ``slots``. Their tensors must outlive the table and must not move."""
    addresses = [[0] * slots for _ in range(3)]
    ranks = [0] * slots
    for slot, each in adapters.items():
        ranks[slot] = len(each.a)
        for column, tensor in zip(addresses, (each.a, each.b, each.shift), strict=True):
            column[slot] = 0 if tensor is None else tensor.data_ptr()
    a, b, shift = torch.tensor(addresses, dtype=torch.int64, device=device)
    rank = torch.tensor(ranks, dtype=torch.int32, device=device)
    return WeightTable(a, b, shift, rank, max(16, 1 << (max(ranks) - 1).bit_length()))


def add_adapters(table: WeightTable, mapping: AdapterMapping, x: Tensor, y: Tensor, bias: Tensor | None) -> None:
    """Add the adapters' part to ``y`` [t, out], the base output of ``x`` [t, in], in place."""
    from compass_ray.engine.triton import kernels

    tiles, x = mapping.tiles, x.contiguous()
    (_, inner), out = x.shape, y.shape[1]
    splits = -(-inner // _SPLIT)
    low = torch.empty(splits, len(tiles), TILE, table.max_rank, dtype=torch.float32, device=y.device)
    base_output = y.clone() if mapping.has_blends else y
    kernels.shrink[(len(tiles), splits)](
        x,
        low,
        table.a,
        table.rank,
        tiles.slot,
        tiles.tokens,
        inner,
        len(tiles),
        SPLIT=_SPLIT,
        TILE=TILE,
        R=table.max_rank,
        K=_INNER,
    )
    for first, end in tiles.rounds:
        kernels.expand[(end - first, -(-out // _OUTER))](
            y, base_output, y if bias is None else bias, low, table.b, table.shift, table.rank,
            tiles.slot, tiles.tokens, tiles.weight, first, out, len(tiles),
            BIASED=bias is not None, SPLITS=splits, TILE=TILE, R=table.max_rank, N=_OUTER,
        )  # fmt: skip
