"""Tokens of a routing in tiles of one adapter each, which is what a program of the fused kernel works on.

Key property: within a round no token occurs twice, so the programs of one launch never write to the same element; the
second adapter of a blended token is in the second round. Computes nothing of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

TILE = 16
"""Tokens of a tile: the least side that a GPU's matrix units take."""


@dataclass(frozen=True)
class TokenTiles:
    """``slot`` int32[n], ``rows`` int64[n, TILE] with -1 where there is no token, ``weight`` float32[n, TILE].

    ``rounds`` are the tiles' ranges (first, behind the last), to be added one after another.
    """

    slot: Tensor
    tokens: Tensor
    weight: Tensor
    rounds: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.slot)


def build_tiles(members: Mapping[int, Mapping[int, float]], device: torch.device) -> TokenTiles:
    """Tiles of the tokens' weights by slot."""
    slots: list[int] = []
    tokens: list[list[tuple[int, float]]] = []
    ends = [0]
    for part in _split_into_rounds(members):
        for slot, pairs in sorted(part.items()):
            cut = [pairs[i : i + TILE] for i in range(0, len(pairs), TILE)]
            slots += [slot] * len(cut)
            tokens += [each + [(-1, 0.0)] * (TILE - len(each)) for each in cut]
        ends.append(len(slots))
    return TokenTiles(
        slot=torch.tensor(slots, dtype=torch.int32, device=device),
        tokens=torch.tensor([[token for token, _ in tile] for tile in tokens], dtype=torch.int64, device=device),
        weight=torch.tensor([[weight for _, weight in tile] for tile in tokens], dtype=torch.float32, device=device),
        rounds=tuple(pairwise(ends)),
    )


def _split_into_rounds(members: Mapping[int, Mapping[int, float]]) -> list[dict[int, list[tuple[int, float]]]]:
    """(token, weight) by slot, the k-th adapter of every token in round k."""
    seen: dict[int, int] = {}
    rounds: list[dict[int, list[tuple[int, float]]]] = []
    for slot, tokens in sorted(members.items()):
        for token, weight in tokens.items():
            at = seen[token] = seen.get(token, -1) + 1
            if at == len(rounds):
                rounds.append({})
            rounds[at].setdefault(slot, []).append((token, weight))
    return rounds
