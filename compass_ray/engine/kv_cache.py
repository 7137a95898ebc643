"""Keys and values of the rows that are decoded together, one place a row, allocated once.

Key property: what it takes is known before the first request, so a replica never runs out of memory in the middle of one;
and a place belongs to one row at a time, so nothing is ever shared between two adapters. Schedules nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError

GIB = 1 << 30


@dataclass(frozen=True)
class KVLayerShape:
    """Key-value heads of a layer and the width of their keys and values."""

    num_kv_heads: int
    key_width: int
    value_width: int


def find_kv_layer_shapes(base: BaseModel) -> list[KVLayerShape]:
    """What each attention layer of the model keeps of a token, found by running it on one.

    Raises:
        ModelError: the model keeps something else, such as a recurrent state.
    """
    with torch.inference_mode():
        kept = base.model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=base.device), use_cache=True).past_key_values
    layers = getattr(kept, "layers", ())
    try:
        return [KVLayerShape(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3]) for layer in layers]
    except AttributeError:
        kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
        raise ModelError(f"{base.name} keeps {kinds or 'no keys and values'}; serve one that attends in every layer") from None


def slot_bytes(shapes: Sequence[KVLayerShape], context: int, dtype: torch.dtype) -> int:
    """Bytes of one row's place for ``context`` tokens."""
    return sum(shape.num_kv_heads * (shape.key_width + shape.value_width) for shape in shapes) * context * dtype.itemsize


class KVCache:
    """Places 0 .. rows - 1 for rows of up to ``context`` tokens."""

    def __init__(self, base: BaseModel, *, rows: int, context: int, gib: float) -> None:
        """Allocate as many places as fit ``gib``, ``rows`` at most.

        Raises:
            ModelError: not even one fits.
        """
        shapes = find_kv_layer_shapes(base)
        one = slot_bytes(shapes, context, base.model.dtype)
        self.num_slots = min(rows, int(gib * GIB // one))
        self.max_model_len = context
        if self.num_slots < 1:
            raise ModelError(
                f"a row of {context} tokens takes {one / GIB:.2f} GiB of keys and values, and {gib:g} GiB are allowed; raise "
                f"serve.kv_cache_gib, or lower serve.max_prompt_tokens"
            )
        like: dict[str, Any] = {"dtype": base.model.dtype, "device": base.device}
        # Zeros: see `clear`.
        self.keys = [torch.zeros(self.num_slots, s.num_kv_heads, context, s.key_width, **like) for s in shapes]
        self.values = [torch.zeros(self.num_slots, s.num_kv_heads, context, s.value_width, **like) for s in shapes]

    def move_slot(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` of one place over those of another, which is clear, and clear the first."""
        for stored in (*self.keys, *self.values):
            stored[target, :, :tokens] = stored[source, :, :tokens]
        self.clear_slot(source, tokens)

    def clear_slot(self, place: int, tokens: int) -> None:
        """Forget the first ``tokens`` of a place.

        What lies behind a row's end is masked out of attention, and nothing masks out a NaN that another row left there.
        """
        for stored in (*self.keys, *self.values):
            stored[place, :, :tokens] = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all places."""
        return sum(stored.nbytes for stored in (*self.keys, *self.values))


def attention_window(model: Any) -> int | None:
    """Tokens that a layer looks back on, where that is bounded; None where it sees all."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((window for window in windows if window), default=None)


def derive_max_model_len(model: Any) -> int:
    """Tokens of prompt and reply together that the model takes in a batch of rows of any length.

    Rotary embeddings that change with the longest row of a batch (LongRoPE, dynamic) would make a row's reply depend on its
    neighbours, so such a model is kept to the length up to which they stay.
    """
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [getattr(config, "max_position_embeddings", None), attention_window(model)]
    if str(rope.get("rope_type", "default")) in ("longrope", "dynamic"):
        limits.append(rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None))
    return min((int(limit) for limit in limits if limit), default=1 << 30)
