"""The table of s - 1 in each layer and its use: tensor operations only, so CUDA graphs and torch.compile capture it."""

from __future__ import annotations

import torch
from torch import Tensor


def make_gain_table(slots: int, outputs: int, device: torch.device | str) -> Tensor:
    """float32[slots + 1, out] of zeros. The last row stays zero: tokens without adapter have index -1, which selects it."""
    return torch.zeros(slots + 1, outputs, dtype=torch.float32, device=device)


def apply_gains(output: Tensor, bias: Tensor | None, table: Tensor, token_slots: Tensor) -> Tensor:
    """output += (output - bias) * table[slot of the token], in place; rows of slot -1 keep their values.

    ``output`` is [..., out] = W x + bias; ``bias`` is what the layer added, or None; ``token_slots`` is int64 and has at least as
    many entries as ``output`` has rows.
    """
    rows = output.view(-1, output.shape[-1])
    gains = table[token_slots[: rows.shape[0]]]
    rows.addcmul_(rows if bias is None else rows - bias, gains)
    return output
