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
    "output_router_logits",
}
"""Attention arguments that change nothing here. A window is in the shape of the cache: see `_layer_cache`."""


_UNSUPPORTED = "which batched serving does not support; use another base model"


@dataclass(frozen=True)
class PrefillChunk:
    """``length`` tokens of a prompt from ``start``, of the request in ``slot``."""

    slot: int
    start: int
    length: int


@dataclass(frozen=True)
class AttentionMetadata:
    """Content of the sequence: the next token of the requests in slots 0 .. n - 1, in any order, then prefill chunks."""

    kv_cache: KVCache
    decode_positions: Tensor
    """int64[n], position of each new token in its request."""
    decode_slots: Tensor
    """int64[n], slot of each new token."""
    slot_order: Tensor | None
    """int64[n], index of the new token of each slot, None if the tokens are in the order of their slots."""
    max_decode_len: int
    decode_mask: Tensor | None
    """bool[n, 1, 1, longest] by slot, None if all requests have the same length."""
    prefill_chunks: tuple[PrefillChunk, ...]


def build_attention_metadata(
    kv_cache: KVCache, lengths: Sequence[int], chunks: Sequence[PrefillChunk], device: torch.device, slots: Sequence[int] = ()
) -> AttentionMetadata:
    """Metadata of a step that decodes the requests in the first slots, of ``lengths`` tokens so far, and prefills ``chunks``.

    ``slots`` are those of the new tokens, if their order differs from that of the slots.
    """
    positions = torch.tensor(lengths, dtype=torch.int64, device=device)
    decode_slots = torch.tensor(slots or range(len(lengths)), dtype=torch.int64, device=device)
    longest = max(lengths, default=0) + 1
    same_length = min(lengths, default=0) + 1 == longest
    mask = None if same_length else (torch.arange(longest, device=device) <= positions[:, None])[:, None, None]
    slot_order = decode_slots.argsort() if slots else None
    return AttentionMetadata(kv_cache, positions[decode_slots], decode_slots, slot_order, longest, mask, tuple(chunks))


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
    _check_kwargs(module, kwargs)
    keys, values = _layer_cache(module, attn_metadata.kv_cache, kwargs.get("sliding_window"))
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
    """``query`` [heads, n, d], ``key`` and ``value`` [groups, n, d]; [n, heads, d].

    A new token replaces the one that leaves the window. Keys contain their position, so their order in the cache is free.
    """
    n, stored, slots = query.shape[1], keys.shape[2], metadata.decode_slots
    index = metadata.decode_positions if metadata.max_decode_len <= stored else metadata.decode_positions % stored
    keys[slots, :, index] = key.transpose(0, 1)
    values[slots, :, index] = value.transpose(0, 1)
    longest, mask = min(metadata.max_decode_len, stored), metadata.decode_mask
    # Heads of a group share keys. As several queries of one head they need no copy of the keys.
    grouped = query.transpose(0, 1).reshape(n, key.shape[0], -1, query.shape[-1])
    if metadata.slot_order is not None:
        grouped = grouped[metadata.slot_order]
    output = functional.scaled_dot_product_attention(
        grouped,
        keys[:n, :, :longest],
        values[:n, :, :longest],
        attn_mask=None if mask is None else mask[..., :longest],
        scale=scaling,
    )
    output = output.flatten(1, 2)
    return output if metadata.slot_order is None else output[slots]


def _prefill_attention(
    chunk: PrefillChunk, keys: Tensor, values: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """``query`` [heads, t, d], ``key`` and ``value`` [groups, t, d]; [t, heads, d]."""
    end, stored = chunk.start + chunk.length, keys.shape[2]
    if end <= stored:
        keys[chunk.slot, :, chunk.start : end] = key
        values[chunk.slot, :, chunk.start : end] = value
        keys, values, mask = keys[chunk.slot, :, :end], values[chunk.slot, :, :end], None
        if chunk.start and chunk.length > 1:
            mask = torch.ones(chunk.length, end, dtype=torch.bool, device=query.device).tril(chunk.start)
    else:
        earlier, newest, mask = _window_indices(chunk, stored, query.device)
        window_keys = torch.cat([keys[chunk.slot, :, earlier], key], 1)
        window_values = torch.cat([values[chunk.slot, :, earlier], value], 1)
        keys[chunk.slot, :, newest] = key[:, -len(newest) :]
        values[chunk.slot, :, newest] = value[:, -len(newest) :]
        keys, values = window_keys, window_values
    output = functional.scaled_dot_product_attention(
        query[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=mask is None and chunk.length > 1,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return output[0].transpose(0, 1)


def _window_indices(chunk: PrefillChunk, window: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For a chunk that ends behind the window: cache indices of the tokens before it that it attends to, int64[e].

    Then the cache indices of its last tokens, int64[min(t, window)], and its mask bool[t, e + t].
    """
    end = chunk.start + chunk.length
    earlier = torch.arange(max(chunk.start - window + 1, 0), chunk.start, device=device)
    newest = torch.arange(max(end - window, chunk.start), end, device=device)
    n = len(earlier)
    mask = torch.ones(chunk.length, n + chunk.length, dtype=torch.bool, device=device).tril(n).triu(n - window + 1)
    return earlier % window, newest % window, mask


def _layer_cache(module: torch.nn.Module, kv_cache: KVCache, window: int | None) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer.

    Raises:
        ModelError: the layer uses the cache of another layer, or another window than its own cache.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    kind = type(module).__name__
    if layer >= len(kv_cache.keys):
        raise ModelError(f"{kind} {layer} shares the keys of another layer, {_UNSUPPORTED}")
    stored = kv_cache.keys[layer].shape[2]
    if min(window or kv_cache.max_model_len, kv_cache.max_model_len) != stored:
        raise ModelError(f"{kind} {layer} attends over {window or 'all'} tokens but its cache keeps {stored}, {_UNSUPPORTED}")
    return kv_cache.keys[layer], kv_cache.values[layer]


def _check_kwargs(module: torch.nn.Module, kwargs: dict[str, Any]) -> None:
    unknown = sorted(name for name, value in kwargs.items() if value is not None and name not in _IGNORED_KWARGS)
    if unknown:
        raise ModelError(f"{type(module).__name__} needs {', '.join(unknown)}, {_UNSUPPORTED}")
