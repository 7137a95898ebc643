"""Linear layers that apply another adapter to every row of one batch.

    y = W x + bias + (s - 1) * W x + s * (alpha / r) B A x,    s = m / ||W + (alpha / r) B A||

which is `dora`'s layer with s, a constant after training, taken out of the forward pass. Key properties: a row without
adapter gets the base's output bit for bit; s - 1 is kept in float32, because s lies near 1; the bias is not scaled. One
resident base serves every adapter. Knows nothing of requests or generation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from compass_ray.models.dora import row_norms
from compass_ray.models.errors import ModelError

BASE = 0
"""Slot of the base model: zeros in every stack."""


@dataclass
class Routing:
    """Which slot each row of the current batch uses; shared by all layers of a model."""

    slots: tuple[int, ...] = ()
    index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def set(self, slots: list[int], device: torch.device) -> None:
        """Route row i of the next forward passes to ``slots[i]``."""
        self.slots = tuple(slots)
        self.index = torch.tensor(slots, dtype=torch.int64, device=device)

    def clear(self) -> None:
        """Route every row to the base."""
        self.slots = ()

    @property
    def only(self) -> int | None:
        """The slot that all rows share, None where they differ."""
        distinct = set(self.slots) or {BASE}
        return distinct.pop() if len(distinct) == 1 else None


@dataclass(frozen=True)
class LayerWeights:
    """One adapter on one layer, ready to serve: ``a`` [r, in], ``b`` [out, r] already scaled, ``shift`` = s - 1 [out]."""

    a: Tensor
    b: Tensor
    shift: Tensor


def prepare(layer: nn.Linear, a: Tensor, b: Tensor, magnitude: Tensor | None, scaling: float) -> LayerWeights:
    """Fold magnitude, norm and scaling into what a forward pass needs. LoRA has no magnitude and no shift.

    Raises:
        ModelError: shapes that do not fit the layer, or a scale that is not finite.
    """
    out, inner = layer.weight.shape
    rank = a.shape[0]
    if a.shape != (rank, inner) or b.shape != (out, rank) or (magnitude is not None and magnitude.shape != (out,)):
        raise ModelError(
            f"adapter factors {tuple(a.shape)} and {tuple(b.shape)} do not fit a layer of {inner} inputs and {out} "
            f"outputs; the adapter was made for another base model"
        )
    device, dtype = layer.weight.device, layer.weight.dtype
    a, b = a.to(device).float(), b.to(device).float()
    scale = torch.ones(out, device=device)
    if magnitude is not None:
        scale = magnitude.to(device).float() / row_norms(layer.weight, a, b, scaling)
    if not bool(scale.isfinite().all()):
        raise ModelError("a row of the adapted weight has length zero, so its DoRA scale is not finite; train it again")
    return LayerWeights(a.to(dtype), (b * (scale * scaling)[:, None]).to(dtype), scale - 1)


class RoutedLinear(nn.Module):
    """A linear layer and the stacks of all adapters on it."""

    def __init__(self, base: nn.Linear, routing: Routing) -> None:
        """Start with the base's slot alone."""
        super().__init__()
        self.base = base
        self.routing = routing
        weight = base.weight
        self.a = weight.new_zeros(1, 1, base.in_features)
        self.b = weight.new_zeros(1, base.out_features, 1)
        self.shift = torch.zeros(1, base.out_features, device=weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Output [b, t, out] of ``x`` [b, t, in], row i under the adapter that the routing names."""
        y: Tensor = self.base(x)
        only = self.routing.only
        if only == BASE:
            return y
        frozen = y if self.base.bias is None else y - self.base.bias
        if only is not None:
            delta = functional.linear(functional.linear(x, self.a[only]), self.b[only])
            return y + (delta + frozen * self.shift[only]).to(y.dtype)
        index = self.routing.index
        low = torch.bmm(x, self.a[index].mT)
        delta = torch.bmm(low, self.b[index].mT)
        return y + (delta + frozen * self.shift[index, None]).to(y.dtype)

    def put(self, slot: int, weights: LayerWeights | None) -> None:
        """Fill a slot, or empty it with None, growing the stacks where needed."""
        rank = weights.a.shape[0] if weights else 1
        self._grow(slot + 1, rank)
        self.a[slot].zero_()
        self.b[slot].zero_()
        self.shift[slot].zero_()
        if weights:
            self.a[slot, :rank] = weights.a
            self.b[slot, :, :rank] = weights.b
            self.shift[slot] = weights.shift

    def _grow(self, slots: int, rank: int) -> None:
        have, width, _ = self.a.shape
        if slots <= have and rank <= width:
            return
        # Doubling keeps the cost of n loads linear in n.
        more = max(slots, 2 * have) - have if slots > have else 0
        wider = max(rank - width, 0)
        self.a = functional.pad(self.a, (0, 0, 0, wider, 0, more))
        self.b = functional.pad(self.b, (0, wider, 0, 0, 0, more))
        self.shift = functional.pad(self.shift, (0, 0, 0, more))
