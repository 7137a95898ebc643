"""Token sequences of different lengths as one tensor, for inference with a key-value cache. Sorts and truncates nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_left(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, both int64[b, t], aligned at the end so that generation starts in one column."""
    width = max(len(sequence) for sequence in sequences)
    ids = [[pad] * (width - len(sequence)) + list(sequence) for sequence in sequences]
    mask = [[0] * (width - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def pad_right(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, both int64[b, t], aligned at the start."""
    width = max(len(sequence) for sequence in sequences)
    ids = [list(sequence) + [pad] * (width - len(sequence)) for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions_of(mask: Tensor) -> Tensor:
    """int64[b, t] position of each token among the present ones of its row; 0 on padding before them."""
    return (mask.cumsum(1) - 1).clamp_min(0)
