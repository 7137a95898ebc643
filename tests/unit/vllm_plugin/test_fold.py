"""The fold computes what PEFT's DoRA layer computes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compass_ray.vllm_plugin.factors import DoraFactors
from compass_ray.vllm_plugin.fold import compute_scale, fold_slice


def _peft_layer(bias: bool, **settings: Any) -> tuple[nn.Linear, Any]:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 12, bias=bias))
    base = nn.Linear(20, 12, bias=bias)
    base.load_state_dict(model[0].state_dict())
    adapted = get_peft_model(model, LoraConfig(target_modules=["0"], use_dora=True, **settings)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
            if "magnitude" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    return base, adapted


def _factors_of(adapted: Any, scaling: float) -> DoraFactors:
    layer = adapted.base_model.model[0]
    magnitude = layer.lora_magnitude_vector["default"].weight
    return DoraFactors(layer.lora_A["default"].weight, layer.lora_B["default"].weight, magnitude, scaling)


def _folded_output(base: nn.Linear, factors: DoraFactors, x: Tensor) -> Tensor:
    weight = base.weight
    folded = fold_slice(factors, torch.arange(len(weight)), weight.square().sum(1), factors.a @ weight.T)
    plain = x @ weight.T
    y = plain + folded.gain * plain + (x @ factors.a.T) @ folded.b.T
    return y if base.bias is None else y + base.bias


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("settings", "scaling"),
    [
        ({"r": 4, "lora_alpha": 8}, 2.0),
        ({"r": 8, "lora_alpha": 20, "use_rslora": True}, 20 / math.sqrt(8)),
        ({"r": 1, "lora_alpha": 3}, 3.0),
    ],
)
@torch.no_grad()
def test_the_output_is_that_of_peft(bias: bool, settings: dict[str, Any], scaling: float) -> None:
    base, adapted = _peft_layer(bias, **settings)
    x = torch.randn(7, 20)
    torch.testing.assert_close(_folded_output(base, _factors_of(adapted, scaling), x), adapted(x), atol=2e-6, rtol=2e-6)


@given(seed=st.integers(0, 10_000), rank=st.integers(1, 6), scaling=st.floats(0.1, 30))
@torch.no_grad()
def test_the_scale_is_that_of_the_dense_formula(seed: int, rank: int, scaling: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, a, b = (torch.randn(*shape, generator=generator) for shape in ((9, 16), (rank, 16), (9, rank)))
    magnitude = torch.rand(9, generator=generator)
    factors = DoraFactors(a, b, magnitude, scaling)
    dense = weight.double() + scaling * (b.double() @ a.double())
    found = compute_scale(factors, torch.arange(9), weight.square().sum(1), a @ weight.T)
    torch.testing.assert_close(found.double(), magnitude.double() / dense.norm(dim=1), rtol=1e-3, atol=1e-5)


def test_a_row_of_length_zero_has_scale_one() -> None:
    factors = DoraFactors(torch.randn(2, 5), torch.zeros(3, 2), torch.ones(3), 2.0)
    found = compute_scale(factors, torch.arange(3), torch.tensor([0.0, 4.0, 1.0]), torch.zeros(2, 3))
    assert found.tolist() == [1.0, 0.5, 1.0]


def test_only_the_rows_of_this_rank_are_scaled() -> None:
    factors = DoraFactors(torch.zeros(2, 5), torch.ones(4, 2), torch.full((4,), 6.0), 0.5)
    folded = fold_slice(factors, torch.tensor([2, 3]), torch.tensor([4.0, 9.0]), torch.zeros(2, 2))
    assert folded.gain.tolist() == [2.0, 1.0]
    assert folded.b[:, 0].tolist() == [0.5, 0.5, 1.5, 1.0]
