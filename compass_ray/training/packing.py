"""Pack examples into one sequence without padding.

No row attends to another. With sdpa, `packed_attention` computes each row separately. Otherwise position ids that restart at
0 mark the rows: eager attention derives a mask from them, flash attention the ends of rows. `open_packed_batcher` checks
that the base model separates the rows. Packing does not join rows into longer examples.
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
from compass_ray.models.token_memory import MOST_TRAINED
from compass_ray.training import packed_attention
from compass_ray.training.collate import Batch, collate, join_teachers, token_losses

_MASKED_PACK_TOKENS = 512
"""Maximum tokens of a pack if attention covers the full square of the pack, masked or not.

On one core, hidden size 128, rows of 10 to 214 tokens that padding makes half as much again: packs of 128, 512 and 4,096
tokens train at 0.83, 1.11 and 0.84 times the speed of padded rows; with packed attention, larger packs train at 1.47 times.
"""
_MAX_LOSS_DIFFERENCE = 0.05
"""Nats per token between two attention implementations: far above bfloat16 rounding, far below a real difference."""


@dataclass(frozen=True)
class PackedBatcher:
    """Makes packs of at most ``max_tokens`` tokens, or of one longer row."""

    max_tokens: int
    device: torch.device
    uses_packed_attention: bool = False

    def make_batches(self, examples: Sequence[EncodedExample]) -> list[Batch]:
        """Packs that contain every row once."""
        groups = first_fit_decreasing([len(example) for example in examples], self.max_tokens)
        return [self.pack([examples[i] for i in group]) for group in groups]

    def pack(self, examples: Sequence[EncodedExample]) -> Batch:
        """One sequence int64[1, t] of all rows, with the positions of response tokens."""
        lengths = [len(example) for example in examples]
        ids = np.concatenate([example.input_ids for example in examples]).astype(np.int64)
        labels = np.concatenate([[IGNORE_INDEX, *example.labels[1:]] for example in examples]).astype(np.int64)
        starts = np.concatenate([np.arange(length) for length in lengths])
        response = np.flatnonzero(labels != IGNORE_INDEX)
        return Batch(
            input_ids=torch.from_numpy(ids)[None].to(self.device),
            positions=torch.from_numpy(response - 1).to(self.device),
            targets=torch.from_numpy(labels[response]).to(self.device),
            rows=torch.from_numpy(np.repeat(np.arange(len(examples)), lengths)[response]).to(self.device),
            weights=torch.tensor([e.weight for e in examples], dtype=torch.float32, device=self.device),
            teacher=join_teachers(examples, self.device),
            model_kwargs={
                "position_ids": torch.from_numpy(starts)[None].to(self.device),
                **(packed_attention.attention_kwargs(lengths, self.device) if self.uses_packed_attention else {}),
            },
        )


@contextmanager
def open_packed_batcher(
    model: Any, longest: int, example: EncodedExample, device: torch.device, max_tokens: int = MOST_TRAINED["cpu"]
) -> Iterator[PackedBatcher]:
    """A packed batcher that suits the model's attention, valid within the block.

    ``longest`` is the number of tokens that a row may have, ``max_tokens`` that of a pack. ``example`` is used to check it.

    Raises:
        ModelError: the example's losses depend on the row before it, whatever attention is used.
    """
    with ExitStack() as stack:
        found = _with_packed_attention(stack, model, longest, example, device, max_tokens)
        yield found or _with_position_ids(model, example, device, max_tokens)


def first_fit_decreasing(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in packs of at most ``tokens`` tokens, at least one row each. Longest rows first, each in the first pack with room.

    >>> first_fit_decreasing([3, 9, 2, 4], 6)
    [[1], [3, 2], [0]]
    """
    packs: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        pack = next((k for k, space in enumerate(free) if lengths[index] <= space), None)
        if pack is None:
            packs.append([index])
            free.append(tokens - lengths[index])
        else:
            packs[pack].append(index)
            free[pack] -= lengths[index]
    return packs


def _with_packed_attention(
    stack: ExitStack, model: Any, longest: int, example: EncodedExample, device: torch.device, max_tokens: int
) -> PackedBatcher | None:
    """A batcher with packed attention, which is enabled in ``stack``; None if it differs from the model's attention."""
    if not packed_attention.can_replace_sdpa(model, longest):
        return None
    alone = _last_row_losses(model, collate([example], 0, device), example)
    with ExitStack() as trial:
        trial.enter_context(packed_attention.use_packed_attention(model))
        batcher = PackedBatcher(max_tokens, device, uses_packed_attention=True)
        after_itself, after_other = _losses_after_others(model, batcher, example)
        if not (
            torch.equal(after_itself, after_other) and torch.allclose(after_itself, alone, rtol=0, atol=_MAX_LOSS_DIFFERENCE)
        ):
            return None
        stack.push(trial.pop_all())
    return batcher


def _with_position_ids(model: Any, example: EncodedExample, device: torch.device, max_tokens: int) -> PackedBatcher:
    """A batcher for attention that separates rows by their position ids."""
    flash = "flash" in str(model.config._attn_implementation)
    batcher = PackedBatcher(max_tokens if flash else min(max_tokens, _MASKED_PACK_TOKENS), device)
    after_itself, after_other = _losses_after_others(model, batcher, example)
    if not torch.allclose(after_itself, after_other, rtol=1e-3, atol=1e-3):
        change = float((after_itself - after_other).abs().max())
        raise ModelError(
            f"packed rows attend to each other in {type(model).__name__} with {model.config._attn_implementation!r} "
            f"attention: a row's loss per token changes by up to {change:.3g} with the row before it; set "
            f"train.batches=padded"
        )
    return batcher


def _losses_after_others(model: Any, batcher: PackedBatcher, example: EncodedExample) -> tuple[Tensor, Tensor]:
    """Losses of the example after itself, and after other tokens."""
    other = EncodedExample(example.input_ids[::-1], example.labels)
    after_itself, after_other = (_last_row_losses(model, batcher.pack([before, example]), example) for before in (example, other))
    return after_itself, after_other


def _last_row_losses(model: Any, batch: Batch, last: EncodedExample) -> Tensor:
    with torch.inference_mode():
        return token_losses(model, batch)[-sum(label != IGNORE_INDEX for label in last.labels[1:]) :]
