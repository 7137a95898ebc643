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

from compass_ray.models.errors import ModelError
from compass_ray.models.row_cache import RowCache

NAME = "compass_step"
_HARMLESS = {"dropout", "sliding_window", "is_causal", "position_ids", "use_cache", "output_attentions", "output_hidden_states"}
"""What models hand to attention that changes nothing here; windows are longer than any row (`row_cache.positions_taken`)."""


@dataclass(frozen=True)
class Stretch:
    """``length`` tokens of a prompt from ``start`` on, whose row has the place ``place``."""

    place: int
    start: int
    length: int


@dataclass(frozen=True)
class Step:
    """What is in the sequence: the next token of the rows in places 0 .. n - 1, then stretches of prompts."""

    cache: RowCache
    positions: Tensor
    """int64[n], where in its row each reply's token stands."""
    longest: int
    mask: Tensor | None
    """bool[n, 1, 1, longest], None where all rows are as long."""
    stretches: tuple[Stretch, ...]


def make_step(cache: RowCache, lengths: Sequence[int], stretches: Sequence[Stretch], device: torch.device) -> Step:
    """The step in which the rows in the first places, ``lengths`` tokens long by now, get one more."""
    positions = torch.tensor(lengths, dtype=torch.int64, device=device)
    longest = max(lengths, default=0) + 1
    even = min(lengths, default=0) + 1 == longest
    mask = None if even else (torch.arange(longest, device=device) <= positions[:, None])[:, None, None]
    return Step(cache, positions, longest, mask, tuple(stretches))


def use(model: Any) -> str:
    """Let a model attend this way, and give back the name of the way before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = str(model.config._attn_implementation)
    model.set_attn_implementation(NAME)
    return before


def inputs_of(step: Step, device: torch.device) -> dict[str, Any]:
    """What the model is to be given besides token and position ids."""
    # A mask in four dimensions is passed on as it is, so none is built; nobody reads this one.
    return {"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device), "step": step, "use_cache": False}


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    step: Step | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """``query`` [1, heads, t, d], ``key`` and ``value`` [1, groups, t, d]; [1, t, heads, d]."""
    if step is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **named)
        return found
    _refuse_unknown(named)
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys, values = step.cache.keys[layer], step.cache.values[layer]
    n = len(step.positions)
    parts = [_replies(step, keys, values, query[0, :, :n], key[0, :, :n], value[0, :, :n], scaling)] if n else []
    for stretch in step.stretches:
        here = slice(n, n + stretch.length)
        parts.append(_prompt(stretch, keys, values, query[0, :, here], key[0, :, here], value[0, :, here], scaling))
        n += stretch.length
    return torch.cat(parts)[None], None


def _replies(
    step: Step, keys: Tensor, values: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """``query`` [heads, n, d], ``key`` and ``value`` [groups, n, d]; [n, heads, d]."""
    n = query.shape[1]
    places = torch.arange(n, device=query.device)
    keys[places, :, step.positions] = key.transpose(0, 1)
    values[places, :, step.positions] = value.transpose(0, 1)
    # The heads of a group ask the same keys: as queries of one head they need no copy of them.
    grouped = query.transpose(0, 1).reshape(n, key.shape[0], -1, query.shape[-1])
    seen = functional.scaled_dot_product_attention(
        grouped, keys[:n, :, : step.longest], values[:n, :, : step.longest], attn_mask=step.mask, scale=scaling
    )
    return seen.flatten(1, 2)


def _prompt(
    stretch: Stretch, keys: Tensor, values: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """``query`` [heads, t, d], ``key`` and ``value`` [groups, t, d]; [t, heads, d]."""
    end = stretch.start + stretch.length
    keys[stretch.place, :, stretch.start : end] = key
    values[stretch.place, :, stretch.start : end] = value
    mask = None
    if stretch.start and stretch.length > 1:
        mask = torch.ones(stretch.length, end, dtype=torch.bool, device=query.device).tril(stretch.start)
    seen = functional.scaled_dot_product_attention(
        query[None],
        keys[stretch.place, :, :end][None],
        values[stretch.place, :, :end][None],
        attn_mask=mask,
        is_causal=not stretch.start and stretch.length > 1,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return seen[0].transpose(0, 1)


def _refuse_unknown(named: dict[str, Any]) -> None:
    unknown = sorted(name for name, value in named.items() if value is not None and name not in _HARMLESS)
    if unknown:
        raise ModelError(f"the model's attention asks for {', '.join(unknown)}, which is not served; use another base model")
