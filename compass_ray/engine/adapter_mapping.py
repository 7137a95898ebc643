"""Which adapters each token of a forward pass wears, and the tokens grouped by adapter.

Key property: tokens are grouped once for a routing, not once a layer, and asking for the same routing again costs one
comparison, so decoding steps that repeat it pay nothing. A token may wear a blend, a weighted sum of adapted layers; what
its weights leave of 1 is the base's. Computes nothing of a layer: that is `routed_linear`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from compass_ray.engine.triton.tiles import TokenTiles, build_tiles

BASE_SLOT = 0
"""Slot of the base model, which holds no adapter."""

TokenAdapters: TypeAlias = tuple[tuple[int, float], ...]
"""The adapters of one token as (slot, weight); () is the base."""


@dataclass(frozen=True)
class AdapterGroup:
    """The tokens that wear one adapter: a range of the tokens as `Routing.order` puts them."""

    slot: int
    tokens: slice
    weight: Tensor | None
    """float32[n, 1], None where all are 1."""


@dataclass(frozen=True)
class PaddedGroups:
    """All groups side by side: token ``index`` int64[g, n], shorter groups filled with a token of theirs at weight 0."""

    slots: tuple[int, ...]
    token_index: Tensor
    weight: Tensor | None
    """float32[g, n, 1], None where all are 1."""


class AdapterMapping:
    """The routing of the next forward passes; shared by all layers of a model."""

    def __init__(self) -> None:
        """Every token is the base's."""
        self.by_token: tuple[TokenAdapters, ...] = ()
        self.groups: tuple[AdapterGroup, ...] = ()
        self.token_order: Tensor | None = None
        """int64: a token for each adapter that it wears, by adapter; None where each adapter's tokens stand together."""
        self.padded_groups: PaddedGroups | None = None
        self.has_blends = False
        self._weights_by_slot: dict[int, dict[int, float]] = {}
        self._device = torch.device("cpu")
        self._tiles: TokenTiles | None = None

    @property
    def tiles(self) -> TokenTiles:
        """The groups as the fused kernel takes them."""
        if self._tiles is None:
            self._tiles = build_tiles(self._weights_by_slot, self._device)
        return self._tiles

    def update(self, wears: Sequence[TokenAdapters], device: torch.device, *, stacked: bool = False) -> None:
        """Route token i of the next forward passes, in flattened order, by ``wears[i]``.

        ``stacked`` also lays the groups side by side where that wastes little.

        Raises:
            ValueError: a weight that is no finite number.
        """
        members = _group_by_slot(wears)
        listed = [token for _, tokens in sorted(members.items()) for token in tokens]
        together = all(max(tokens) - min(tokens) < len(tokens) for tokens in members.values())
        self.has_blends = len(listed) > len(set(listed))
        self.token_order = None if together and not self.has_blends else torch.tensor(listed, device=device)
        self.groups = _make_groups(members, device, ordered=self.token_order is not None)
        self.padded_groups = _pad_groups(members, device) if stacked else None
        self._weights_by_slot, self._device, self._tiles = members, device, None
        self.by_token = tuple(wears)  # last: it says that the rest is this routing's

    def clear(self) -> None:
        """Route every token to the base, however many there are."""
        self.update((), torch.device("cpu"))

    def check_num_tokens(self, tokens: int) -> None:
        """Raise ValueError unless the routing is for a pass of ``tokens`` tokens."""
        if len(self.by_token) != tokens:
            raise ValueError(f"{len(self.by_token)} tokens are routed but a layer got {tokens}; route every token of the pass")


def _group_by_slot(wears: Sequence[TokenAdapters]) -> dict[int, dict[int, float]]:
    """Weight of each token by slot."""
    members: dict[int, dict[int, float]] = {}
    for token, wear in enumerate(wears):
        for slot, weight in wear:
            if not math.isfinite(weight):
                raise ValueError(f"token {token} wears slot {slot} at weight {weight}; give a finite number")
            if slot != BASE_SLOT and weight:
                tokens = members.setdefault(slot, {})
                tokens[token] = tokens.get(token, 0.0) + weight
    return members


def _make_groups(members: dict[int, dict[int, float]], device: torch.device, *, ordered: bool) -> tuple[AdapterGroup, ...]:
    found, end = [], 0
    for slot, tokens in sorted(members.items()):
        first = end if ordered else min(tokens)
        end = first + len(tokens)
        found.append(AdapterGroup(slot, slice(first, end), _weight_tensor([list(tokens.values())], device, (-1, 1))))
    return tuple(found)


def _pad_groups(members: dict[int, dict[int, float]], device: torch.device) -> PaddedGroups | None:
    width = max(map(len, members.values()), default=0)
    filled = sum(width - len(tokens) for tokens in members.values())
    # A place that is filled costs 1 to 2 us a layer of 128 by 128 to 384, a turn of the loop that it spares 6.
    if len(members) < 2 or filled > 4 * len(members):
        return None
    slots = tuple(sorted(members))
    index = [_pad_tokens(list(members[slot]), width) for slot in slots]
    weight = [[*members[slot].values(), *[0.0] * (width - len(members[slot]))] for slot in slots]
    return PaddedGroups(slots, torch.tensor(index, device=device), _weight_tensor(weight, device, (len(slots), width, 1)))


def _pad_tokens(tokens: list[int], width: int) -> list[int]:
    return tokens + tokens[-1:] * (width - len(tokens))


def _weight_tensor(weight: list[list[float]], device: torch.device, shape: tuple[int, ...]) -> Tensor | None:
    if all(each == 1 for row in weight for each in row):
        return None
    return torch.tensor(weight, dtype=torch.float32, device=device).view(shape)
