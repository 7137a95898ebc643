"""Adapters of each token of a forward pass, with the tokens grouped by adapter.

Tokens are grouped once per mapping, not once per layer. Setting the same mapping again costs one comparison, so repeated
decoding steps pay nothing. A token may use a blend, a weighted sum of adapters; the base model has the remaining weight.
`MultiAdapterLinear` computes the layers.
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
"""Slot of the base model; it never holds an adapter."""

TokenAdapters: TypeAlias = tuple[tuple[int, float], ...]
"""The adapters of one token as (slot, weight) pairs; () is the base model."""


@dataclass(frozen=True)
class AdapterGroup:
    """The tokens of one adapter: a range of the tokens in the order of `AdapterMapping.token_order`."""

    slot: int
    tokens: slice
    weight: Tensor | None
    """float32[n, 1], None where all are 1."""


@dataclass(frozen=True)
class PaddedGroups:
    """All groups padded to one length: ``token_index`` int64[g, n], where padding repeats a token of the group at weight 0."""

    slots: tuple[int, ...]
    token_index: Tensor
    weight: Tensor | None
    """float32[g, n, 1], None where all are 1."""


class AdapterMapping:
    """The adapter mapping of the next forward passes, shared by all layers of a model."""

    def __init__(self) -> None:
        """Start with the base model for every token."""
        self.by_token: tuple[TokenAdapters, ...] = ()
        self.groups: tuple[AdapterGroup, ...] = ()
        self.token_order: Tensor | None = None
        """int64: tokens sorted by adapter, once per adapter; None if the tokens of each adapter are contiguous."""
        self.padded_groups: PaddedGroups | None = None
        self.has_blends = False
        self._weights_by_slot: dict[int, dict[int, float]] = {}
        self._device = torch.device("cpu")
        self._tiles: TokenTiles | None = None

    @property
    def tiles(self) -> TokenTiles:
        """The groups as tiles for the Triton kernels."""
        if self._tiles is None:
            self._tiles = build_tiles(self._weights_by_slot, self._device)
        return self._tiles

    def update(self, by_token: Sequence[TokenAdapters], device: torch.device, *, stacked: bool = False) -> None:
        """Map token i of the next forward passes, in flattened order, to the adapters ``by_token[i]``.

        ``stacked`` also builds padded groups where padding is small.

        Raises:
            ValueError: a weight is not finite.
        """
        weights_by_slot = _group_by_slot(by_token)
        ordered_tokens = [token for _, tokens in sorted(weights_by_slot.items()) for token in tokens]
        contiguous = all(max(tokens) - min(tokens) < len(tokens) for tokens in weights_by_slot.values())
        self.has_blends = len(ordered_tokens) > len(set(ordered_tokens))
        self.token_order = None if contiguous and not self.has_blends else torch.tensor(ordered_tokens, device=device)
        self.groups = _make_groups(weights_by_slot, device, ordered=self.token_order is not None)
        self.padded_groups = _pad_groups(weights_by_slot, device) if stacked else None
        self._weights_by_slot, self._device, self._tiles = weights_by_slot, device, None
        self.by_token = tuple(by_token)  # last: it marks the update as complete

    def clear(self) -> None:
        """Map every token to the base model, for any number of tokens."""
        self.update((), torch.device("cpu"))

    def check_num_tokens(self, tokens: int) -> None:
        """Raise ValueError unless the mapping covers ``tokens`` tokens."""
        if len(self.by_token) != tokens:
            raise ValueError(
                f"{len(self.by_token)} tokens are mapped to adapters, but a layer got {tokens}; map every token of the pass"
            )


def _group_by_slot(by_token: Sequence[TokenAdapters]) -> dict[int, dict[int, float]]:
    """Weight of each token, by slot and token."""
    weights_by_slot: dict[int, dict[int, float]] = {}
    for token, adapters in enumerate(by_token):
        for slot, weight in adapters:
            if not math.isfinite(weight):
                raise ValueError(f"token {token} uses slot {slot} at weight {weight}; the weight must be finite")
            if slot != BASE_SLOT and weight:
                tokens = weights_by_slot.setdefault(slot, {})
                tokens[token] = tokens.get(token, 0.0) + weight
    return weights_by_slot


def _make_groups(
    weights_by_slot: dict[int, dict[int, float]], device: torch.device, *, ordered: bool
) -> tuple[AdapterGroup, ...]:
    groups, end = [], 0
    for slot, tokens in sorted(weights_by_slot.items()):
        first = end if ordered else min(tokens)
        end = first + len(tokens)
        groups.append(AdapterGroup(slot, slice(first, end), _weight_tensor([list(tokens.values())], device, (-1, 1))))
    return tuple(groups)


def _pad_groups(weights_by_slot: dict[int, dict[int, float]], device: torch.device) -> PaddedGroups | None:
    width = max(map(len, weights_by_slot.values()), default=0)
    padding = sum(width - len(tokens) for tokens in weights_by_slot.values())
    # A padding token costs 1 to 2 us in a layer of 128 by 128 to 384; a loop iteration that it saves costs 6 us.
    if len(weights_by_slot) < 2 or padding > 4 * len(weights_by_slot):
        return None
    slots = tuple(sorted(weights_by_slot))
    index = [_pad_tokens(list(weights_by_slot[slot]), width) for slot in slots]
    weight = [[*weights_by_slot[slot].values(), *[0.0] * (width - len(weights_by_slot[slot]))] for slot in slots]
    return PaddedGroups(slots, torch.tensor(index, device=device), _weight_tensor(weight, device, (len(slots), width, 1)))


def _pad_tokens(tokens: list[int], width: int) -> list[int]:
    return tokens + tokens[-1:] * (width - len(tokens))


def _weight_tensor(weight: list[list[float]], device: torch.device, shape: tuple[int, ...]) -> Tensor | None:
    if all(each == 1 for row in weight for each in row):
        return None
    return torch.tensor(weight, dtype=torch.float32, device=device).view(shape)
