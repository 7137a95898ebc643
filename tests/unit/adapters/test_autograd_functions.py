"""Hand-written gradients against what torch derives for the plain formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from compass_ray.adapters.autograd_functions import AdaptedProduct


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_adapted_product(scaled: bool, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    weight, bias = draw(5, 4), draw(5) if biased else None
    x, a, b = (draw(*shape).requires_grad_() for shape in ((2, 3, 4), (2, 4), (5, 2)))
    gain = draw(5).requires_grad_() if scaled else None
    inputs = [tensor for tensor in (x, a, b, gain) if tensor is not None]
    plain = functional.linear(x, weight) * (1 if gain is None else 1 + gain) + x @ a.T @ b.T + (0 if bias is None else bias)
    found = AdaptedProduct.apply(x, weight, bias, a, b, gain)
    torch.testing.assert_close(found, plain)
    upstream = draw(2, 3, 5)
    expected = torch.autograd.grad(plain, inputs, upstream)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, upstream), expected)


@pytest.mark.parametrize("factor", [0.9975, 1.0025, 1.006])
def test_a_factor_near_one_is_not_lost_in_bfloat16(factor: float) -> None:
    """Around 1, bfloat16 has only 0.9961, 1 and 1.0078."""
    generator = torch.Generator().manual_seed(0)
    x, weight, a, b = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((512, 64), (512, 64), (2, 64), (512, 2)))
    b = 0.01 * b
    gain = torch.full((512,), factor - 1).bfloat16()
    found = AdaptedProduct.apply(x, weight, None, a, b, gain).double()
    exact, added = x.double() @ weight.double().T, x.double() @ a.double().T @ b.double().T
    assert float(((found - added) * exact).sum() / exact.square().sum()) == pytest.approx(factor, abs=5e-4)
