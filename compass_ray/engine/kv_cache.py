"""Key-value cache with one slot for each request, allocated once.

Its size is fixed before the first request, so a replica never runs out of cache memory later. A slot belongs to one request
at a time, so two adapters never share keys or values. A layer with a sliding window stores the last tokens of its window only,
token p at index p modulo the window. Schedules nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError

GIB = 1 << 30


@dataclass(frozen=True)
class KVLayerShape:
    """Key-value heads of a layer, the width of its keys and values, and its sliding window."""

    num_kv_heads: int
    key_width: int
    value_width: int
    window: int | None = None
    """Tokens that a token attends back to, itself included; None without a sliding window."""

    def num_tokens(self, max_model_len: int) -> int:
        """Tokens that a slot of this layer stores, of a request of ``max_model_len`` tokens."""
        return min(self.window or max_model_len, max_model_len)


def find_kv_layer_shapes(base: BaseModel) -> list[KVLayerShape]:
    """Cache shape of each attention layer, found by running the model on one token.

    Raises:
        ModelError: the model caches something else, such as a recurrent state.
    """
    with torch.inference_mode():
        output = base.model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=base.device), use_cache=True)
    layers = getattr(getattr(output, "past_key_values", None), "layers", ())
    try:
        shapes = [_layer_shape(layer) for layer in layers]
    except (AttributeError, IndexError):
        shapes = []
    if not shapes:
        kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
        raise ModelError(
            f"{type(base.model).__name__} caches {kinds or 'no keys and values'}; use a base model with attention in every layer"
        )
    return shapes


def _layer_shape(layer: Any) -> KVLayerShape:
    return KVLayerShape(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3], getattr(layer, "sliding_window", None))


def slot_bytes(shapes: Sequence[KVLayerShape], max_model_len: int, dtype: torch.dtype) -> int:
    """Bytes of one slot of ``max_model_len`` tokens."""
    values = sum(s.num_kv_heads * (s.key_width + s.value_width) * s.num_tokens(max_model_len) for s in shapes)
    return values * dtype.itemsize


class KVCache:
    """Slots 0 .. ``num_slots`` - 1 for requests of up to ``max_model_len`` tokens."""

    def __init__(self, base: BaseModel, *, max_num_seqs: int, max_model_len: int, gib: float) -> None:
        """Allocate as many slots as fit into ``gib``, at most ``max_num_seqs``.

        Raises:
            ModelError: not even one slot fits.
        """
        shapes = find_kv_layer_shapes(base)
        bytes_per_slot = slot_bytes(shapes, max_model_len, base.model.dtype)
        self.num_slots = min(max_num_seqs, int(gib * GIB // bytes_per_slot))
        self.max_model_len = max_model_len
        if self.num_slots < 1:
            raise ModelError(
                f"one request of {max_model_len} tokens needs {bytes_per_slot / GIB:.2f} GiB of key-value cache, but the limit "
                f"is {gib:g} GiB; raise serve.kv_cache_gib or lower serve.max_prompt_tokens"
            )
        like: dict[str, Any] = {"dtype": base.model.dtype, "device": base.device}
        # Zeros: see `clear_slot`.
        tokens = [shape.num_tokens(max_model_len) for shape in shapes]
        sizes = [(self.num_slots, shape.num_kv_heads, t) for shape, t in zip(shapes, tokens, strict=True)]
        self.keys = [torch.zeros(*size, shape.key_width, **like) for size, shape in zip(sizes, shapes, strict=True)]
        self.values = [torch.zeros(*size, shape.value_width, **like) for size, shape in zip(sizes, shapes, strict=True)]

    def move_slot(self, source: int, target: int, tokens: int) -> None:
        """Move the first ``tokens`` tokens of ``source`` to ``target``, which must be clear, and clear ``source``."""
        for stored in (*self.keys, *self.values):
            stored[target, :, :tokens] = stored[source, :, :tokens]
        self.clear_slot(source, tokens)

    def clear_slot(self, slot: int, tokens: int) -> None:
        """Set the first ``tokens`` tokens of a slot to zero.

        Attention masks what lies behind a request's end, but a mask does not remove a NaN that another request left there.
        """
        for stored in (*self.keys, *self.values):
            stored[slot, :, :tokens] = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return sum(stored.nbytes for stored in (*self.keys, *self.values))


def derive_max_model_len(model: Any) -> int:
    """Tokens of prompt and reply together that the model supports in a batch of requests of any length.

    Rotary embeddings that change with the longest request of a batch (LongRoPE, dynamic) would make a reply depend on its
    neighbours. Such a model is limited to the length up to which its embeddings do not change. Chunked attention is limited to
    its first chunk.
    """
    config = model.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None), getattr(config, "attention_chunk_size", None)]
    for rope in _rope_parameters(config):
        if str(rope.get("rope_type", "default")) in ("longrope", "dynamic"):
            limits.append(
                rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
            )
    return min((int(limit) for limit in limits if limit), default=1 << 30)


def _rope_parameters(config: Any) -> list[Mapping[str, Any]]:
    """Parameters of each kind of rotary embedding: of all layers, or of each type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    by_type = [value for value in rope.values() if isinstance(value, Mapping)]
    return by_type or [rope]
