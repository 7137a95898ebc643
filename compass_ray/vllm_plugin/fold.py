"""The fold of one layer, as pure functions of tensors (Liu et al. 2024, section 4.3).

The dense product B A is never built: ||w + c b A||^2 = ||w||^2 + 2 c b (A w) + c^2 b (A A^T) b^T for each row w of W and b of B.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compass_ray.vllm_plugin.factors import DoraFactors


@dataclass(frozen=True)
class FoldedSlice:
    """One slice of a layer, ready for vLLM."""

    b: Tensor
    """float32[out, r]: s c B for the rows of this rank, c B for the others, which this rank does not read."""
    gain: Tensor
    """float32[rows]: s - 1 of the rows of this rank."""


def compute_scale(factors: DoraFactors, rows: Tensor, base_squared: Tensor, product: Tensor) -> Tensor:
    """s = m / ||W + c B A||, float32[rows], and 1 where the norm is zero: such a row gives zero at any finite scale.

    ``rows`` are the rows of the checkpoint that this rank has, int64; ``base_squared`` is ||w||^2 of them, float32[rows];
    ``product`` is A W^T, float32[r, rows].
    """
    a, b = factors.a.to(product.device), factors.b[rows].to(product.device)
    cross = (b * product.T).sum(1)
    low_rank = ((b @ (a @ a.T)) * b).sum(1)
    norm = (base_squared + 2 * factors.scaling * cross + factors.scaling**2 * low_rank).clamp_min(0).sqrt()
    is_zero = norm == 0
    scale: Tensor = factors.magnitude[rows].to(product.device) / norm.masked_fill(is_zero, 1.0)
    return scale.masked_fill(is_zero, 1.0)


def fold_slice(factors: DoraFactors, rows: Tensor, base_squared: Tensor, product: Tensor) -> FoldedSlice:
    """B with s and the scaling in it, and s - 1; both on the CPU. Arguments are those of `compute_scale`."""
    scale = compute_scale(factors, rows, base_squared, product).cpu()
    b = factors.b * factors.scaling
    b[rows] *= scale[:, None]
    return FoldedSlice(b, scale - 1)
