"""Adapters added to a layer's output on a GPU by two launches, whatever the number of adapters and tokens.

Key property: used by itself where the layer lies on a CUDA device and Triton can be imported; the plain path of
`routed_linear` computes the same. Its speed on a GPU has not been measured.
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
    """Addresses of a layer's adapters by slot, int64[slots], and their ranks, int32[slots], 0 where there is none."""

    a: Tensor
    b: Tensor
    shift: Tensor
    rank: Tensor
    max_rank: int
    """A power of two, at least 16, that no rank exceeds."""


def is_supported(y: Tensor) -> bool:
    """Whether the kernels run on tensors like this one."""
    return y.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return util.find_spec("triton") is not None


def build_weight_table(adapters: Mapping[int, LayerWeights], slots: int, device: torch.device) -> WeightTable:
    """The table of ``adapters``, for slots below ``slots``. They must outlive it and stay where they are."""
    addresses = [[0] * slots for _ in range(3)]
    ranks = [0] * slots
    for slot, each in adapters.items():
        ranks[slot] = len(each.a)
        for column, tensor in zip(addresses, (each.a, each.b, each.shift), strict=True):
            column[slot] = 0 if tensor is None else tensor.data_ptr()
    a, b, shift = torch.tensor(addresses, dtype=torch.int64, device=device)
    rank = torch.tensor(ranks, dtype=torch.int32, device=device)
    return WeightTable(a, b, shift, rank, max(16, 1 << (max(ranks) - 1).bit_length()))


def add_adapters(found: WeightTable, routing: AdapterMapping, x: Tensor, y: Tensor, bias: Tensor | None) -> None:
    """Add to ``y`` [t, out], the base's output of ``x`` [t, in], what the adapters of the tokens add, in place."""
    from compass_ray.engine.triton import kernels

    tiles, x = routing.tiles, x.contiguous()
    (_, inner), out = x.shape, y.shape[1]
    splits = -(-inner // _SPLIT)
    low = torch.empty(splits, len(tiles), TILE, found.max_rank, dtype=torch.float32, device=y.device)
    frozen = y.clone() if routing.has_blends else y
    kernels.shrink[(len(tiles), splits)](
        x,
        low,
        found.a,
        found.rank,
        tiles.slot,
        tiles.tokens,
        inner,
        len(tiles),
        SPLIT=_SPLIT,
        TILE=TILE,
        R=found.max_rank,
        K=_INNER,
    )
    for first, behind in tiles.rounds:
        kernels.expand[(behind - first, -(-out // _OUTER))](
            y, frozen, y if bias is None else bias, low, found.b, found.shift, found.rank, tiles.slot, tiles.tokens, tiles.weight,
            first, out, len(tiles), BIASED=bias is not None, SPLITS=splits, TILE=TILE, R=found.max_rank, N=_OUTER,
        )  # fmt: skip
