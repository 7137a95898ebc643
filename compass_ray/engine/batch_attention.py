"""Attention of one step of a batch: the next token of every reply under way, and stretches of prompts, in one sequence.

Key properties: a row attends to its own place of the cache and to nothing else; replies are taken together, padded to the
longest of them, each prompt by itself. It is in the place of transformers' sdpa, and does what sdpa does for any other
call. Scores, softmax and kernels are torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compass_ray.engine.kv_cache import KVCache
from compass_ray.models.errors import ModelError

NAME = "compass_step"
_IGNORED_KWARGS = {
    "dropout",
    "sliding_window",
    "is_causal",
    "position_ids",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
}
"""What models hand to attention that changes nothing here; windows are longer than any row (`row_cache.positions_taken`)."""


@dataclass(frozen=True)
class PrefillChunk:
    """``length`` tokens of a prompt from ``start`` on, whose row has the place ``place``."""

    slot: int
    start: int
    length: int


@dataclass(frozen=True)
class AttentionMetadata:
    """What is in the sequence: the next token of the rows in places 0 .. n - 1, then stretches of prompts."""

    kv_cache: KVCache
    decode_positions: Tensor
    """int64[n], where in its row each reply's token stands."""
    max_decode_len: int
    decode_mask: Tensor | None
    """bool[n, 1, 1, longest], None where all rows are as long."""
    prefill_chunks: tuple[PrefillChunk, ...]


def build_attention_metadata(
    cache: KVCache, lengths: Sequence[int], stretches: Sequence[PrefillChunk], device: torch.device
) -> AttentionMetadata:
    """The step in which the rows in the first places, ``lengths`` tokens long by now, get one more."""
    positions = torch.tensor(lengths, dtype=torch.int64, device=device)
    longest = max(lengths, default=0) + 1
    even = min(lengths, default=0) + 1 == longest
    mask = None if even else (torch.arange(longest, device=device) <= positions[:, None])[:, None, None]
    return AttentionMetadata(cache, positions, longest, mask, tuple(stretches))


def enable(model: Any) -> str:
    """Let a model attend this way, and give back the name of the way before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = str(model.config._attn_implementation)
    model.set_attn_implementation(NAME)
    return before


def attention_kwargs(step: AttentionMetadata, device: torch.device) -> dict[str, Any]:
    """What the model is to be given besides token and position ids."""
    # A mask in four dimensions is passed on as it is, so none is built; nobody reads this one.
    return {"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device), "step": step, "use_cache": False}


def _attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    step: AttentionMetadata | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """``query`` [1, heads, t, d], ``key`` and ``value`` [1, groups, t, d]; [1, t, heads, d]."""
    if step is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **named)
        return found
    _refuse_unknown(named)
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys, values = step.kv_cache.keys[layer], step.kv_cache.values[layer]
    n = len(step.decode_positions)
    parts = [_decode_attention(step, keys, values, query[0, :, :n], key[0, :, :n], value[0, :, :n], scaling)] if n else []
    for stretch in step.prefill_chunks:
        here = slice(n, n + stretch.length)
        parts.append(_prefill_attention(stretch, keys, values, query[0, :, here], key[0, :, here], value[0, :, here], scaling))
        n += stretch.length
    return torch.cat(parts)[None], None


def _decode_attention(
    step: AttentionMetadata, keys: Tensor, values: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """``query`` [heads, n, d], ``key`` and ``value`` [groups, n, d]; [n, heads, d]."""
    n = query.shape[1]
    places = torch.arange(n, device=query.device)
    keys[places, :, step.decode_positions] = key.transpose(0, 1)
    values[places, :, step.decode_positions] = value.transpose(0, 1)
    # The heads of a group ask the same keys: as queries of one head they need no copy of them.
    grouped = query.transpose(0, 1).reshape(n, key.shape[0], -1, query.shape[-1])
    seen = functional.scaled_dot_product_attention(
        grouped,
        keys[:n, :, : step.max_decode_len],
        values[:n, :, : step.max_decode_len],
        attn_mask=step.decode_mask,
        scale=scaling,
    )
    return seen.flatten(1, 2)


def _prefill_attention(
    stretch: PrefillChunk, keys: Tensor, values: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """``query`` [heads, t, d], ``key`` and ``value`` [groups, t, d]; [t, heads, d]."""
    end = stretch.start + stretch.length
    keys[stretch.slot, :, stretch.start : end] = key
    values[stretch.slot, :, stretch.start : end] = value
    mask = None
    if stretch.start and stretch.length > 1:
        mask = torch.ones(stretch.length, end, dtype=torch.bool, device=query.device).tril(stretch.start)
    seen = functional.scaled_dot_product_attention(
        query[None],
        keys[stretch.slot, :, :end][None],
        values[stretch.slot, :, :end][None],
        attn_mask=mask,
        is_causal=not stretch.start and stretch.length > 1,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return seen[0].transpose(0, 1)


def _refuse_unknown(named: dict[str, Any]) -> None:
    unknown = sorted(name for name, value in named.items() if value is not None and name not in _IGNORED_KWARGS)
    if unknown:
        raise ModelError(f"the model's attention asks for {', '.join(unknown)}, which is not served; use another base model")
