"""Gains of a mixed batch, and that base rows keep their bits."""

from __future__ import annotations

import pytest
import torch

from compass_ray.vllm_plugin.gain_table import apply_gains, make_gain_table

SLOTS = torch.tensor([-1, 0, 2, -1, 1, 9, 9])
"""Of five tokens; vLLM's index is longer than a batch."""


@pytest.mark.parametrize("bias", [None, torch.randn(6)])
def test_each_token_has_the_gain_of_its_slot(bias: torch.Tensor | None) -> None:
    table = make_gain_table(3, 6, "cpu")
    table[:3] = torch.randn(3, 6)
    product = torch.randn(5, 6)
    output = product if bias is None else product + bias
    expected = output + product * torch.stack([torch.zeros(6), table[0], table[2], torch.zeros(6), table[1]])
    torch.testing.assert_close(apply_gains(output.clone(), bias, table, SLOTS), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_base_rows_keep_their_bits(dtype: torch.dtype) -> None:
    table = make_gain_table(3, 64, "cpu")
    table[:3] = torch.randn(3, 64)
    output, bias = torch.randn(5, 64).to(dtype), torch.randn(64).to(dtype)
    changed = apply_gains(output.clone(), bias, table, SLOTS)
    base = SLOTS[:5] < 0
    assert torch.equal(changed[base], output[base])
    assert not torch.equal(changed[~base], output[~base])
    assert changed.dtype == dtype


def test_an_output_with_a_batch_dimension_is_changed_in_place() -> None:
    table = make_gain_table(1, 4, "cpu")
    table[0] = 1.0
    output = torch.ones(1, 5, 4)
    assert apply_gains(output, None, table, torch.tensor([0, -1, 0, -1, 0])) is output
    assert output[0, :, 0].tolist() == [2.0, 1.0, 2.0, 1.0, 2.0]
