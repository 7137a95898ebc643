"""Attention of packed rows, each row by itself.

Key property: what it costs grows with the sum of the rows' squares and needs no mask, where transformers' own sdpa goes
over the square of the whole pack. In the place of sdpa it does what sdpa does with any other batch. It is the same
attention: scores, softmax and kernels are torch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_NAME = "compass_rows"


def can_replace_sdpa(model: Any, longest: int) -> bool:
    """Whether attention over all of a row of ``longest`` tokens, by sdpa, is what the model does."""
    config = model.config
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    return getattr(config, "_attn_implementation", None) == "sdpa" and (window is None or window >= longest)


@contextmanager
def use_packed_attention(model: Any) -> Iterator[None]:
    """Use it in the place of sdpa; sdpa is back at the end."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, _attention_forward)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attention_kwargs(lengths: Sequence[int], device: torch.device) -> Mapping[str, Any]:
    """What the model is to be given for one sequence of rows of these lengths."""
    # A mask in four dimensions is passed on as it is, so none is built; nobody reads this one.
    return {"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device), "row_lengths": tuple(lengths)}


def _attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row_lengths: tuple[int, ...] | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """``query`` [b, heads, t, d], ``key`` and ``value`` [b, groups, t, d]; [b, t, heads, d]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if row_lengths is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **named)
        return found
    rows = zip(*(torch.split(each, list(row_lengths), 2) for each in (query, key, value)), strict=True)
    named["is_causal"] = True
    return torch.cat([sdpa_attention_forward(module, q, k, v, None, **named)[0] for q, k, v in rows], 1), None
