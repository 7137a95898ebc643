"""Tiles of tokens with one adapter each, the unit of work of one Triton program.

Within a round no token occurs twice, so the programs of one launch never write to the same element. The second adapter of a
blended token is in the second round. Computes no layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

TILE = 16
"""Tokens per tile: the smallest side of a GPU's matrix units."""


@dataclass(frozen=True)
class TokenTiles:
    """``slot`` int32[n], ``tokens`` int64[n, TILE] with -1 for padding, ``weight`` float32[n, TILE].

    ``rounds`` are ranges of tiles (first, end), added one after another.
    """

    slot: Tensor
    tokens: Tensor
    weight: Tensor
    rounds: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.slot)


def build_tiles(weights_by_slot: Mapping[int, Mapping[int, float]], device: torch.device) -> TokenTiles:
    """Tiles of the tokens in ``weights_by_slot``, which maps slot to token to weight."""
    slots: list[int] = []
    tokens: list[list[tuple[int, float]]] = []
    ends = [0]
    for part in _split_into_rounds(weights_by_slot):
        for slot, pairs in sorted(part.items()):
            tiles = [pairs[i : i + TILE] for i in range(0, len(pairs), TILE)]
            slots += [slot] * len(tiles)
            tokens += [each + [(-1, 0.0)] * (TILE - len(each)) for each in tiles]
        ends.append(len(slots))
    return TokenTiles(
        slot=torch.tensor(slots, dtype=torch.int32, device=device),
        tokens=torch.tensor([[token for token, _ in tile] for tile in tokens], dtype=torch.int64, device=device),
        weight=torch.tensor([[weight for _, weight in tile] for tile in tokens], dtype=torch.float32, device=device),
        rounds=tuple(pairwise(ends)),
    )


def _split_into_rounds(weights_by_slot: Mapping[int, Mapping[int, float]]) -> list[dict[int, list[tuple[int, float]]]]:
    """(token, weight) by slot, with the k-th adapter of every token in round k."""
    round_of: dict[int, int] = {}
    rounds: list[dict[int, list[tuple[int, float]]]] = []
    for slot, tokens in sorted(weights_by_slot.items()):
        for token, weight in tokens.items():
            index = round_of[token] = round_of.get(token, -1) + 1
            if index == len(rounds):
                rounds.append({})
            rounds[index].setdefault(slot, []).append((token, weight))
    return rounds
