"""Collate examples into padded batches and compute per-token losses of the responses.

Padding is on the right, so a causal model needs no attention mask. The output layer runs on response positions only, and on
a slice of them at a time (`models.lm_head`). The order is seeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample
from compass_ray.models.lm_head import distillation_loss, token_loss
from compass_ray.models.token_memory import MOST_TRAINED

_WINDOW = 32
"""Number of batches in which rows are sorted by length. With 16 rows per batch, a few per cent of tokens are padding."""


@dataclass(frozen=True)
class Batch:
    """Token ids int64[b, t], and for each of k response tokens: the flat position before it, its id, and its row."""

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    rows: Tensor
    weights: Tensor
    """float32, one per row."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the model."""
    teacher: tuple[Tensor, Tensor] | None = None
    """Likeliest tokens int64[k, m] and log-probabilities float32[k, m] that another model gives for each response token."""


class Batcher(Protocol):
    """Makes batches that fit into memory."""

    def make_batches(self, examples: Sequence[EncodedExample]) -> list[Batch]:
        """Batches that contain every example once; an empty list without examples."""


@dataclass(frozen=True)
class PaddedBatcher:
    """Pads rows to the longest of their batch."""

    pad_token_id: int
    device: torch.device
    max_tokens: int = MOST_TRAINED["cpu"]
    """Padded tokens of one forward pass; a larger batch is split and accumulated."""

    def make_batches(self, examples: Sequence[EncodedExample]) -> list[Batch]:
        """Batches of rows of similar length."""
        return [collate([examples[i] for i in group], self.pad_token_id, self.device) for group in self.group_indices(examples)]

    def group_indices(self, examples: Sequence[EncodedExample]) -> list[list[int]]:
        """Indices of the examples in each of the batches, in order."""
        lengths = [len(example) for example in examples]
        return split_by_tokens(range(len(examples)), lengths, self.max_tokens)


def batch_by_length(lengths: Sequence[int], size: int, rng: np.random.Generator) -> list[list[int]]:
    """Indices in batches of ``size`` rows of similar length; batches and rows are in seeded random order."""
    order = rng.permutation(len(lengths))
    values = np.asarray(lengths)
    batches: list[list[int]] = []
    for start in range(0, len(order), size * _WINDOW):
        window = order[start : start + size * _WINDOW]
        window = window[np.argsort(values[window], kind="stable")]
        batches += [window[i : i + size].tolist() for i in range(0, len(window), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def split_by_tokens(indices: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split a batch into parts of at most ``max_tokens`` padded tokens, at least one row each."""
    parts: list[list[int]] = []
    for index in sorted(indices, key=lambda i: lengths[i]):
        if parts and (len(parts[-1]) + 1) * lengths[index] <= max_tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def collate(examples: Sequence[EncodedExample], pad: int, device: torch.device) -> Batch:
    """Pad on the right and record the positions of response tokens."""
    width = max(len(example) for example in examples)
    ids = np.full((len(examples), width), pad, np.int64)
    labels = np.full((len(examples), width), IGNORE_INDEX, np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = example.input_ids
        labels[row, : len(example)] = example.labels
    rows, columns = np.nonzero(labels[:, 1:] != IGNORE_INDEX)
    return Batch(
        input_ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(rows * width + columns).to(device),
        targets=torch.from_numpy(labels[rows, columns + 1]).to(device),
        rows=torch.from_numpy(rows).to(device),
        weights=torch.tensor([e.weight for e in examples], dtype=torch.float32, device=device),
        teacher=join_teachers(examples, device),
    )


def join_teachers(examples: Sequence[EncodedExample], device: torch.device) -> tuple[Tensor, Tensor] | None:
    """What the rows teach instead of their labels, in their order; None if they teach their labels.

    Raises:
        ValueError: only some of the rows have such distributions.
    """
    found = [example.teacher for example in examples if example.teacher is not None]
    if not found:
        return None
    if len(found) < len(examples):
        raise ValueError(f"{len(found)} of {len(examples)} rows of a batch teach distributions; batch them apart")
    ids, log_probs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return torch.from_numpy(ids).to(device), torch.from_numpy(log_probs).to(device)


def token_losses(model: Any, batch: Batch) -> Tensor:
    """float32[k] loss, in nats, of every response token of the batch.

    It is the negative log-likelihood, or for a batch with a teacher the KL divergence from that.
    """
    if batch.teacher is not None:
        inputs = {"input_ids": batch.input_ids, "use_cache": False, **batch.model_kwargs}
        return distillation_loss(model, batch.positions, *batch.teacher, **inputs)
    return token_loss(model, batch.positions, batch.targets, input_ids=batch.input_ids, use_cache=False, **batch.model_kwargs)


def mean_loss_by_row(losses: Tensor, batch: Batch) -> Tensor:
    """float32, the mean loss of each row's response."""
    n = len(batch.weights)
    sums = losses.new_zeros(n).index_add(0, batch.rows, losses)
    return sums / torch.bincount(batch.rows, minlength=n).clamp_min(1)
