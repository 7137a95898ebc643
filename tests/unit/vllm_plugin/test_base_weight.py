"""Norms and products of a weight are those of the matrix, however the layer stores it, and on however many ranks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from compass_ray.vllm_plugin import base_weight
from compass_ray.vllm_plugin.base_weight import BaseWeight

from .stand_ins import Layer, Quantized, Ranks, RowParallel, make_base, make_types

WEIGHT = torch.randn(10, 24, generator=torch.Generator().manual_seed(0))
A = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))


def _plain(base: Any) -> None:
    pass


def _packed(base: Any) -> None:
    base.weight = torch.empty(0)


def _quantized(base: Any) -> None:
    base.quant_method = Quantized()
    del base.weight


@pytest.mark.parametrize("storage", [_plain, _packed, _quantized])
@pytest.mark.parametrize("columns", [5, 512])
def test_norms_and_products_are_those_of_the_matrix(storage: Any, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_weight, "COLUMNS", columns)
    base = make_base(WEIGHT, (6, 4))
    storage(base)
    weight = BaseWeight(Layer(base, (6, 4)), make_types())
    torch.testing.assert_close(weight.squared_norms(), WEIGHT.square().sum(1))
    product, nothing = weight.multiply([A, None])
    assert nothing is None
    assert product is not None
    torch.testing.assert_close(product, A @ WEIGHT.T)


def test_the_norms_are_read_once() -> None:
    base = make_base(WEIGHT.clone(), (10,))
    weight = BaseWeight(Layer(base, (10,)), make_types())
    before = weight.squared_norms()
    base.weight.zero_()
    assert weight.squared_norms() is before


def test_bfloat16_norms_are_exact() -> None:
    low = WEIGHT.bfloat16()
    base = make_base(low, (10,))
    _quantized(base)
    torch.testing.assert_close(BaseWeight(Layer(base, (10,)), make_types()).squared_norms(), low.float().square().sum(1))


def test_ranks_with_a_part_of_the_columns_find_the_sums_of_all() -> None:
    ranks = Ranks()
    types = make_types(ranks.all_reduce)

    def read(rank: int) -> tuple[Tensor, Tensor | None]:
        base = make_base(WEIGHT.chunk(2, dim=1)[rank], (10,), RowParallel, input_size=24)
        weight = BaseWeight(Layer(base, (10,), tp_size=2, tp_rank=rank), types)
        return weight.squared_norms(), weight.multiply([A])[0]

    with ThreadPoolExecutor(2) as pool:
        for squared, product in pool.map(read, range(2)):
            torch.testing.assert_close(squared, WEIGHT.square().sum(1))
            torch.testing.assert_close(product, A @ WEIGHT.T)
