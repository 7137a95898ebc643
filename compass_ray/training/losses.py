"""The loss of rows under the current model: with gradient for training, without for evaluation.

Batches that are split, packed or shared among workers give the result of one batch on one worker, because each part is
divided by the loss mass of all rows. Takes no step and knows no adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample
from compass_ray.models.errors import ModelError
from compass_ray.models.token_memory import MOST_TRAINED
from compass_ray.training.collate import Batch, Batcher, PaddedBatcher, mean_loss_by_row, token_losses
from compass_ray.training.distributed import WorkerGroup


@dataclass(frozen=True)
class RowLosses:
    """Losses of rows in nats, on this worker's share of them."""

    model: Any
    device: torch.device
    batcher: Batcher
    group: WorkerGroup

    def backward(self, examples: Sequence[EncodedExample], factor: float = 1.0) -> Tensor:
        """Add to the gradients. Return this worker's part of ``factor`` x the weighted mean loss per token of all ``examples``.

        Activations of one batch exist at a time.
        """
        total = torch.zeros((), device=self.device)
        scale = factor / weighted_token_count(examples)
        for part in self._local_batches(examples):
            loss = _weighted_sum(self.model, part) * scale
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def evaluate(self, examples: Sequence[EncodedExample]) -> float:
        """Weighted mean over rows of each row's mean loss per token, without gradient; equal on every worker."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.inference_mode():
            for part in self._local_batches(examples):
                total += (mean_loss_by_row(token_losses(self.model, part), part) * part.weights).sum()
        return float(self.group.all_reduce_sum(total)) / sum(example.weight for example in examples)

    def _local_batches(self, examples: Sequence[EncodedExample]) -> list[Batch]:
        indices = self.group.local_indices([len(example) for example in examples])
        return self.batcher.make_batches([examples[i] for i in indices])


def compute_row_losses(
    base: BaseModel, examples: Sequence[EncodedExample], max_tokens: int = MOST_TRAINED["cpu"]
) -> npt.NDArray[np.float64]:
    """float64[n]: each row's mean loss per token (nats), unweighted, in the given order, without gradient.

    A forward pass has at most ``max_tokens`` padded tokens, and at least one row.
    """
    batcher, losses = PaddedBatcher(base.tokenizer.pad_token_id, base.device, max_tokens), np.zeros(len(examples))
    with torch.inference_mode():
        for group, part in zip(batcher.group_indices(examples), batcher.make_batches(examples), strict=True):
            losses[group] = mean_loss_by_row(token_losses(base.model, part), part).double().cpu().numpy()
    return losses


def apply_weights(
    examples: list[EncodedExample], weights: Sequence[float] | npt.NDArray[np.float64] | None
) -> list[EncodedExample]:
    """Validation rows with these weights, without rows of weight 0. Returns ``examples`` if ``weights`` is None.

    Raises:
        ModelError: the number of weights differs, or a weight is negative.
    """
    if weights is None:
        return examples
    if len(weights) != len(examples) or min(weights, default=0.0) < 0:
        raise ModelError(
            f"there are {len(weights)} validation weights (minimum {min(weights, default=0.0)}) for {len(examples)} "
            f"validation rows; pass one weight of at least 0 for each row"
        )
    if sum(weights) <= 0:
        return []
    return [
        EncodedExample(e.input_ids, e.labels, float(weight)) for e, weight in zip(examples, weights, strict=True) if weight > 0
    ]


def weighted_token_count(examples: Sequence[EncodedExample]) -> float:
    """Weighted number of tokens with a label, never zero."""
    return max(sum(e.weight * e.num_reply_tokens for e in examples), 1e-12)


def _weighted_sum(model: Any, batch: Batch) -> Tensor:
    return (token_losses(model, batch) * batch.weights[batch.rows]).sum()
