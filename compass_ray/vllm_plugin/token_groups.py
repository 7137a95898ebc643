"""Adapters of a batch on a CPU: tokens of one adapter side by side, then two small products for each adapter.

vLLM's operations for CPUs gather the factors for each token. Up to 0.32 they also give tokens without adapter those of the last
slot if all slots are in use (vLLM's pull request 48421). Grouped, base rows are never touched. This path branches on values, so
it is for CPUs only, where vLLM does not compile a model with adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compass_ray.vllm_plugin.engine_types import LoraLinear


@dataclass(frozen=True)
class TokenSpan:
    """Tokens of one slot: positions first to last (excluded) in the order of `TokenGroups`."""

    slot: int
    first: int
    last: int


@dataclass(frozen=True)
class TokenGroups:
    """Tokens of a batch that have an adapter."""

    tokens: int
    """All tokens of the batch."""
    order: Tensor
    """int64: positions of tokens with an adapter, those of one slot side by side."""
    spans: tuple[TokenSpan, ...]


def group_tokens(slots: Tensor) -> TokenGroups:
    """Group the tokens of a batch by slot. ``slots`` is int64[tokens], -1 for a token without adapter."""
    order = torch.argsort(slots, stable=True)
    found, counts = torch.unique_consecutive(slots[order], return_counts=True)
    without = int((slots < 0).sum())
    ends = (counts.cumsum(0) - without).tolist()
    spans = map(TokenSpan, found.tolist(), [-without, *ends[:-1]], ends)
    return TokenGroups(len(slots), order[without:], tuple(span for span in spans if span.slot >= 0))


def add_grouped(
    layer: LoraLinear,
    x: Tensor,
    output: Tensor,
    bias: Tensor | None,
    table: Tensor,
    has_gain: Sequence[bool],
    groups: TokenGroups,
) -> None:
    """Add gains and low-rank terms to ``output`` [tokens, out] in place; ``x`` is [tokens, in].

    ``has_gain`` tells for each slot whether its adapter is DoRA on this layer.
    """
    if not groups.spans:
        return
    inputs, rows = x[groups.order], output[groups.order]
    for span in groups.spans:
        part = rows[span.first : span.last]
        if has_gain[span.slot]:
            part.addcmul_(part if bias is None else part - bias, table[span.slot])
        _add_low_rank(layer, inputs[span.first : span.last], part, span.slot)
    output.index_copy_(0, groups.order, rows)


def _add_low_rank(layer: LoraLinear, x: Tensor, y: Tensor, slot: int) -> None:
    start = 0
    for a, b, size in zip(layer.lora_a_stacked, layer.lora_b_stacked, layer.output_slices, strict=True):
        y[:, start : start + size].addmm_(x @ a[slot, 0].T, b[slot, 0].T)
        start += size
