"""The weights of one adapter on one linear layer, folded for serving.

    y = W x + bias + (s - 1) * W x + s * (alpha / r) B A x,    s = m / ||W + (alpha / r) B A||

This is the layer of `dora` with s, which is constant after training, computed once. s - 1 is stored in float32, because s is
close to 1. Only A, B and s - 1 are stored, and they share no memory with a file. `MultiAdapterLinear` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compass_ray.adapters.dora import dora_scale, row_norms
from compass_ray.models.errors import ModelError


@dataclass(frozen=True)
class LayerWeights:
    """``a`` [r, in] and ``b`` [r, out], scaled, in the layer's dtype; ``shift`` = s - 1, float32[out], None for LoRA."""

    a: Tensor
    b: Tensor
    shift: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.a.nbytes + self.b.nbytes + (0 if self.shift is None else self.shift.nbytes)


def fold_layer(weight: Tensor, a: Tensor, b: Tensor, magnitude: Tensor | None, scaling: float) -> LayerWeights:
    """Fold magnitude [out], norm and scaling into ``a`` [r, in] and ``b`` [out, r] for a layer of ``weight`` [out, in].

    Without magnitude it is LoRA.

    Raises:
        ModelError: the shapes do not fit the layer, or a scale is not finite.
    """
    check_shapes(weight, a, b, magnitude)
    device, dtype = weight.device, weight.dtype
    a, b = a.to(device).float(), b.to(device).float()
    if magnitude is None:
        return _check_finite(LayerWeights(a.to(dtype, copy=True), _transpose(b * scaling, dtype), None))
    scale = dora_scale(magnitude.to(device).float(), row_norms(weight, a, b, scaling))
    if not bool(scale.isfinite().all()):
        raise ModelError(
            "the DoRA scale of a row is not finite: the base model's weights or the adapter have NaN, infinity or values above "
            "1e18; download or convert the base model again, or train the adapter again"
        )
    return _check_finite(LayerWeights(a.to(dtype, copy=True), _transpose(b * (scale * scaling)[:, None], dtype), scale - 1))


def check_shapes(weight: Tensor, a: Tensor, b: Tensor, magnitude: Tensor | None) -> None:
    """Check that the tensors of an adapter fit a layer of ``weight`` [out, in], which may have no storage.

    Raises:
        ModelError: they do not.
    """
    out, inner = weight.shape
    fits = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] > 0 and (b.shape[0], a.shape[1]) == (out, inner)
    if not fits or (magnitude is not None and magnitude.shape != (out,)):
        raise ModelError(
            f"adapter factors {tuple(a.shape)} and {tuple(b.shape)} do not fit a layer of {inner} inputs and {out} "
            f"outputs; the adapter was made for another base model"
        )


def _check_finite(weights: LayerWeights) -> LayerWeights:
    if not bool(weights.a.isfinite().all() and weights.b.isfinite().all()):
        raise ModelError(f"the adapter has values that are not finite in {weights.a.dtype}; train it again")
    return weights


def _transpose(b: Tensor, dtype: torch.dtype) -> Tensor:
    # With rows of length out, adding B's part takes 10 us, with rows of length r 14 us (3 tokens, 2,048 outputs, fp32).
    return b.T.to(dtype).contiguous()
