"""Attention of packed rows, each row computed separately.

Its cost grows with the sum of the squared row lengths; transformers' sdpa covers the square of the complete pack. Only a row that
is longer than a layer's sliding window needs a mask. It replaces sdpa and treats any other batch like sdpa. Scores, softmax and
kernels are torch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_NAME = "compass_rows"


def can_replace_sdpa(model: Any, longest: int) -> bool:
    """Whether the model uses sdpa and a row of ``longest`` tokens is not divided into chunks."""
    chunk = getattr(model.config.get_text_config(), "attention_chunk_size", None)
    return getattr(model.config, "_attn_implementation", None) == "sdpa" and (chunk is None or chunk >= longest)


@contextmanager
def use_packed_attention(model: Any) -> Iterator[None]:
    """Replace sdpa within the block."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, _attention_forward)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    previous = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(previous)


def attention_kwargs(lengths: Sequence[int], device: torch.device) -> Mapping[str, Any]:
    """Arguments of the model for one sequence of rows with these lengths."""
    # A four-dimensional mask is passed on unchanged, so transformers builds none. This one is not read.
    return {"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device), "row_lengths": tuple(lengths)}


def _attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row_lengths: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """``query`` [b, heads, t, d], ``key`` and ``value`` [b, groups, t, d]; [b, t, heads, d]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if row_lengths is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output
    rows = zip(*(torch.split(each, list(row_lengths), 2) for each in (query, key, value)), strict=True)
    kwargs["is_causal"] = True
    window = kwargs.get("sliding_window")
    outputs = [sdpa_attention_forward(module, q, k, v, _window_mask(q, window), **kwargs)[0] for q, k, v in rows]
    return torch.cat(outputs, 1), None


def _window_mask(query: Tensor, window: int | None) -> Tensor | None:
    """bool[1, 1, t, t] of a row that is longer than the window; None if causal attention is all that it needs."""
    length = query.shape[2]
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)[None, None]
