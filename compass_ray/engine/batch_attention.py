"""Attention of one step of a batch: one new token of every decoding request, and prefill chunks, in one sequence.

A request attends only to its own cache slot. Decoding requests are computed together, padded to the longest; each prefill
chunk is computed alone. It replaces transformers' sdpa attention, and any call without `AttentionMetadata` runs sdpa
unchanged. Scores, softmax and kernels are torch's.
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
"""Attention arguments that change nothing here. No request is longer than a window: see `derive_max_model_len`."""


@dataclass(frozen=True)
class PrefillChunk:
    """``length`` tokens of a prompt from ``start``, of the request in ``slot``."""

    slot: int
    start: int
    length: int


@dataclass(frozen=True)
class AttentionMetadata:
    """Content of the sequence: the next token of the requests in slots 0 .. n - 1, then prefill chunks."""

    kv_cache: KVCache
    decode_positions: Tensor
    """int64[n], position of each new token in its request."""
    max_decode_len: int
    decode_mask: Tensor | None
    """bool[n, 1, 1, longest], None if all requests have the same length."""
    prefill_chunks: tuple[PrefillChunk, ...]


def build_attention_metadata(
    kv_cache: KVCache, lengths: Sequence[int], chunks: Sequence[PrefillChunk], device: torch.device
) -> AttentionMetadata:
    """Metadata of a step that decodes the requests in the first slots, of ``lengths`` tokens so far, and prefills ``chunks``."""
    positions = torch.tensor(lengths, dtype=torch.int64, device=device)
    longest = max(lengths, default=0) + 1
    same_length = min(lengths, default=0) + 1 == longest
    mask = None if same_length else (torch.arange(longest, device=device) <= positions[:, None])[:, None, None]
    return AttentionMetadata(kv_cache, positions, longest, mask, tuple(chunks))


def enable(model: Any) -> str:
    """Switch a model to this attention and return the name of the previous one."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    previous = str(model.config._attn_implementation)
    model.set_attn_implementation(NAME)
    return previous


def attention_kwargs(metadata: AttentionMetadata, device: torch.device) -> dict[str, Any]:
    """Arguments of the model in addition to token and position ids."""
    # A four-dimensional mask is passed on unchanged, so transformers builds none. This one is not read.
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
    return {"attention_mask": mask, "attn_metadata": metadata, "use_cache": False}


def _attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    attn_metadata: AttentionMetadata | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """``query`` [1, heads, t, d], ``key`` and ``value`` [1, groups, t, d]; [1, t, heads, d]."""
    if attn_metadata is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output
    _check_kwargs(kwargs)
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys, values = attn_metadata.kv_cache.keys[layer], attn_metadata.kv_cache.values[layer]
    n = len(attn_metadata.decode_positions)
    parts = (
        [_decode_attention(attn_metadata, keys, values, query[0, :, :n], key[0, :, :n], value[0, :, :n], scaling)] if n else []
    )
    for chunk in attn_metadata.prefill_chunks:
        at = slice(n, n + chunk.length)
        parts.append(_prefill_attention(chunk, keys, values, query[0, :, at], key[0, :, at], value[0, :, at], scaling))
        n += chunk.length
    return torch.cat(parts)[None], None


def _decode_attention(
    metadata: AttentionMetadata, keys: Tensor, values: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """``query`` [heads, n, d], ``key`` and ``value`` [groups, n, d]; [n, heads, d]."""
    n = query.shape[1]
    slots = torch.arange(n, device=query.device)
    keys[slots, :, metadata.decode_positions] = key.transpose(0, 1)
    values[slots, :, metadata.decode_positions] = value.transpose(0, 1)
    # Heads of a group share keys. As several queries of one head they need no copy of the keys.
    grouped = query.transpose(0, 1).reshape(n, key.shape[0], -1, query.shape[-1])
    output = functional.scaled_dot_product_attention(
        grouped,
        keys[:n, :, : metadata.max_decode_len],
        values[:n, :, : metadata.max_decode_len],
        attn_mask=metadata.decode_mask,
        scale=scaling,
    )
    return output.flatten(1, 2)


def _prefill_attention(
    chunk: PrefillChunk, keys: Tensor, values: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """``query`` [heads, t, d], ``key`` and ``value`` [groups, t, d]; [t, heads, d]."""
    end = chunk.start + chunk.length
    keys[chunk.slot, :, chunk.start : end] = key
    values[chunk.slot, :, chunk.start : end] = value
    mask = None
    if chunk.start and chunk.length > 1:
        mask = torch.ones(chunk.length, end, dtype=torch.bool, device=query.device).tril(chunk.start)
    output = functional.scaled_dot_product_attention(
        query[None],
        keys[chunk.slot, :, :end][None],
        values[chunk.slot, :, :end][None],
        attn_mask=mask,
        is_causal=not chunk.start and chunk.length > 1,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return output[0].transpose(0, 1)


def _check_kwargs(kwargs: dict[str, Any]) -> None:
    unknown = sorted(name for name, value in kwargs.items() if value is not None and name not in _IGNORED_KWARGS)
    if unknown:
        raise ModelError(
            f"the model's attention needs {', '.join(unknown)}, which batched serving does not support; use another base model"
        )
