"""Examples laid one after another in one sequence: batches without a pad token.

Key property: no row sees another. Where the base model attends by sdpa, `row_attention` takes each row by itself; else
position ids that start again at 0 tell transformers where rows begin, by a mask under eager, by the rows' ends under
flash attention. `packed` sees to it that the base model heeds them. It is not the joining of rows into longer examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample
from compass_ray.models.errors import ModelError
from compass_ray.training import packed_attention
from compass_ray.training.collate import MAX_TOKENS_PER_FORWARD, Batch, collate, token_losses

_MASKED_PACK_TOKENS = 512
"""Tokens of a pack where attention goes over all of its square, masked or not.

On one core, hidden size 128, rows of 10 to 214 tokens that padding makes half as much again, packs of 128, 512 and 4,096
tokens are trained on at 0.83, 1.11 and 0.84 of the padded rows' speed; with attention by rows, larger ones at 1.47.
"""
_MAX_LOSS_DIFFERENCE = 0.05
"""Nats a token between two ways of attention: far above rounding in bfloat16, far below another attention."""


@dataclass(frozen=True)
class PackedBatcher:
    """Rows one after another, in packs of at most ``tokens`` tokens, or of one longer row."""

    max_tokens: int
    device: torch.device
    uses_packed_attention: bool = False

    def make_batches(self, examples: Sequence[EncodedExample]) -> list[Batch]:
        """Packs of rows, every row once."""
        groups = first_fit_decreasing([len(example) for example in examples], self.max_tokens)
        return [self.pack([examples[i] for i in group]) for group in groups]

    def pack(self, examples: Sequence[EncodedExample]) -> Batch:
        """One sequence int64[1, t] of all rows, and where response tokens stand in it."""
        lengths = [len(example) for example in examples]
        ids = np.concatenate([example.input_ids for example in examples]).astype(np.int64)
        labels = np.concatenate([[IGNORE_INDEX, *example.labels[1:]] for example in examples]).astype(np.int64)
        starts = np.concatenate([np.arange(length) for length in lengths])
        learnt = np.flatnonzero(labels != IGNORE_INDEX)
        return Batch(
            input_ids=torch.from_numpy(ids)[None].to(self.device),
            positions=torch.from_numpy(learnt - 1).to(self.device),
            targets=torch.from_numpy(labels[learnt]).to(self.device),
            rows=torch.from_numpy(np.repeat(np.arange(len(examples)), lengths)[learnt]).to(self.device),
            weights=torch.tensor([e.weight for e in examples], dtype=torch.float32, device=self.device),
            model_kwargs={
                "position_ids": torch.from_numpy(starts)[None].to(self.device),
                **(packed_attention.attention_kwargs(lengths, self.device) if self.uses_packed_attention else {}),
            },
        )


@contextmanager
def open_packed_batcher(model: Any, longest: int, example: EncodedExample, device: torch.device) -> Iterator[PackedBatcher]:
    """Packs as the model's attention bears them, for as long as the block runs; ``example`` is tried out first.

    Raises:
        ModelError: whatever is tried, the example's losses depend on what stands before it.
    """
    with ExitStack() as stack:
        yield _with_packed_attention(stack, model, longest, example, device) or _with_position_ids(model, example, device)


def first_fit_decreasing(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in packs of at most ``tokens`` tokens, one row at least; longest rows first, each in the first pack with room.

    >>> first_fit_decreasing([3, 9, 2, 4], 6)
    [[1], [3, 2], [0]]
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((k for k, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            packs.append([index])
            room.append(tokens - lengths[index])
        else:
            packs[place].append(index)
            room[place] -= lengths[index]
    return packs


def _with_packed_attention(
    stack: ExitStack, model: Any, longest: int, example: EncodedExample, device: torch.device
) -> PackedBatcher | None:
    """Packs for attention by rows, which is in use from here on; None where it is not the model's own attention."""
    if not packed_attention.can_replace_sdpa(model, longest):
        return None
    alone = _last_row_losses(model, collate([example], 0, device), example)
    with ExitStack() as trial:
        trial.enter_context(packed_attention.use_packed_attention(model))
        found = PackedBatcher(MAX_TOKENS_PER_FORWARD.get(device.type, 8_192), device, uses_packed_attention=True)
        behind, after = _losses_after_others(model, found, example)
        if not (torch.equal(behind, after) and torch.allclose(behind, alone, rtol=0, atol=_MAX_LOSS_DIFFERENCE)):
            return None
        stack.push(trial.pop_all())
    return found


def _with_position_ids(model: Any, example: EncodedExample, device: torch.device) -> PackedBatcher:
    """Packs for attention that finds the rows by their position ids."""
    flash = "flash" in str(model.config._attn_implementation)
    found = PackedBatcher(MAX_TOKENS_PER_FORWARD.get(device.type, 8_192) if flash else _MASKED_PACK_TOKENS, device)
    behind, after = _losses_after_others(model, found, example)
    if not torch.allclose(behind, after, rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"packed rows see one another in {type(model).__name__} with {model.config._attn_implementation!r} attention: a "
            f"row's loss a token changes by up to {float((behind - after).abs().max()):.3g} with the row before it; set "
            f"train.batches=padded"
        )
    return found


def _losses_after_others(model: Any, packs: PackedBatcher, example: EncodedExample) -> tuple[Tensor, Tensor]:
    """Losses of the example behind itself, and behind other tokens."""
    other = EncodedExample(example.input_ids[::-1], example.labels)
    behind, after = (_last_row_losses(model, packs.pack([before, example]), example) for before in (example, other))
    return behind, after


def _last_row_losses(model: Any, batch: Batch, last: EncodedExample) -> Tensor:
    with torch.inference_mode():
        return token_losses(model, batch)[-sum(label != IGNORE_INDEX for label in last.labels[1:]) :]
