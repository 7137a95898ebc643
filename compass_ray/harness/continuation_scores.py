"""Log-likelihood of continuations as lm-evaluation-harness defines it, without all logits of a batch at once.

Key property: batches are limited by tokens, and logits are computed in slices of positions (`models.lm_head`). Requests that
differ in their last token only, such as the letters of a question, are one row of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError
from compass_ray.models.lm_head import token_log_probs
from compass_ray.models.padding import pad_right
from compass_ray.models.token_batches import token_batches

Score = tuple[float, bool]
"""Log-probability of a continuation in nats, and whether each of its tokens is the most likely one."""


@dataclass(frozen=True)
class _Row:
    """Tokens that the model reads, and the requests that these tokens serve."""

    inputs: tuple[int, ...]
    requests: list[int] = field(default_factory=list)
    continuations: list[Sequence[int]] = field(default_factory=list)

    @property
    def scored(self) -> int:
        """Number of positions, at the end, whose logits are needed."""
        return max(map(len, self.continuations))

    def targets(self, width: int) -> Tensor:
        """int64[scored, width]: the tokens after these positions, one column for each request. The last column is repeated."""
        columns = [[*self.inputs[1:], each[-1]][-self.scored :] for each in self.continuations]
        return torch.tensor(columns + columns[-1:] * (width - len(columns))).T


def score_continuations(
    base: BaseModel, requests: Sequence[tuple[Sequence[int], Sequence[int]]], *, max_length: int, batch_tokens: int
) -> list[Score]:
    """The score of each request.

    Args:
        base: the model.
        requests: tokens of context and continuation. If both have more than ``max_length`` + 1, the context is cut at its start.
        max_length: most tokens that the model reads.
        batch_tokens: tokens of a batch with its padding, at least one row.

    Raises:
        ModelError: a continuation is empty or longer than ``max_length``.
    """
    rows = list(_group(requests, max_length))
    lengths = np.array([len(row.inputs) for row in rows], np.int64)
    scores: dict[int, Score] = {}
    for batch in token_batches(lengths, batch_tokens, max_rows=max(len(rows), 1)):
        scores |= _score_batch(base, [rows[index] for index in batch])
    return [scores[number] for number in range(len(requests))]


def _group(requests: Sequence[tuple[Sequence[int], Sequence[int]]], max_length: int) -> Iterator[_Row]:
    rows: dict[tuple[int, ...], _Row] = {}
    for number, (context, continuation) in enumerate(requests):
        if not 0 < len(continuation) <= max_length:
            raise ModelError(f"a reply to be scored has {len(continuation)} tokens; expected 1 to {max_length}")
        inputs = tuple([*context, *continuation][-(max_length + 1) : -1])
        row = rows.setdefault(inputs, _Row(inputs))
        row.requests.append(number)
        row.continuations.append(continuation)
    yield from rows.values()


@torch.inference_mode()
def _score_batch(base: BaseModel, rows: Sequence[_Row]) -> dict[int, Score]:
    """The scores of the requests of a batch, by their number. Padding is on the right, where no scored position attends to it."""
    ids, _ = pad_right([row.inputs for row in rows], 0, base.device)
    counts = [row.scored for row in rows]
    ends = [number * ids.shape[1] + len(row.inputs) for number, row in enumerate(rows)]
    positions = torch.cat([torch.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]).to(base.device)
    width = max(len(row.requests) for row in rows)
    targets = torch.cat([row.targets(width) for row in rows]).to(base.device)
    with _collect_most_likely(base.model) as found:
        log_probs, _ = token_log_probs(base.model, positions, targets, input_ids=ids, use_cache=False)
    is_likeliest: Any = torch.cat(found)[-len(positions) :, None] == targets  # a new model is compared first
    scores: Any = log_probs.double()
    parts = zip(rows, scores.cpu().split(counts), is_likeliest.cpu().split(counts), strict=True)
    return {
        number: (float(values[-len(continuation) :, column].sum()), bool(equal[-len(continuation) :, column].all()))
        for row, values, equal in parts
        for column, (number, continuation) in enumerate(zip(row.requests, row.continuations, strict=True))
    }


@contextmanager
def _collect_most_likely(model: Any) -> Iterator[list[Tensor]]:
    """The most likely token at each position whose logits the head computes within the block, as a list of int64[k]."""
    found: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda head, states, logits: found.append(logits.flatten(0, -2).argmax(-1))
    )
    try:
        yield found
    finally:
        handle.remove()
