"""Pad token sequences to one tensor for inference with a key-value cache. Sorts and truncates nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_left(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, both int64[b, t], padded on the left so that generation starts in one column."""
    width = max(len(sequence) for sequence in sequences)
    ids = [[pad] * (width - len(sequence)) + list(sequence) for sequence in sequences]
    mask = [[0] * (width - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def pad_right(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, both int64[b, t], padded on the right."""
    width = max(len(sequence) for sequence in sequences)
    ids = [list(sequence) + [pad] * (width - len(sequence)) for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions_of(mask: Tensor) -> Tensor:
    """int64[b, t] position of each token in its row, without padding; 0 on left padding."""
    return (mask.cumsum(1) - 1).clamp_min(0)
