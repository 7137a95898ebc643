"""The grouped path for CPUs equals the path of tensor operations and one product for each token."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.vllm_plugin.gain_table import apply_gains, make_gain_table
from compass_ray.vllm_plugin.token_groups import TokenSpan, add_grouped, group_tokens

from .stand_ins import Layer, make_base


def test_tokens_of_a_slot_stand_side_by_side() -> None:
    groups = group_tokens(torch.tensor([2, -1, 0, 2, -1, 0, 2]))
    assert groups.order.tolist() == [2, 5, 0, 3, 6]
    assert groups.spans == (TokenSpan(0, 0, 2), TokenSpan(2, 2, 5))
    assert groups.tokens == 7


def test_a_batch_without_adapters_has_no_groups() -> None:
    assert group_tokens(torch.tensor([-1, -1])).spans == ()
    assert group_tokens(torch.tensor([], dtype=torch.long)).spans == ()


@given(slots=st.lists(st.integers(-1, 2), min_size=1, max_size=12), seed=st.integers(0, 1000), biased=st.booleans())
def test_the_output_is_that_of_single_tokens(slots: list[int], seed: int, biased: bool) -> None:
    torch.manual_seed(seed)
    layer = Layer(make_base(torch.randn(7, 5), (4, 3)), (4, 3), slots=3, rank=2)
    table = make_gain_table(3, 7, "cpu")
    for slot in range(3):
        layer.set_lora(slot, [(torch.randn(2, 5), torch.randn(4, 2)), (torch.randn(2, 5), torch.randn(3, 2))])
    table[[0, 2]] = torch.randn(2, 7)
    tokens = torch.tensor(slots)
    x, output, bias = torch.randn(len(slots), 5), torch.randn(len(slots), 7), torch.randn(7) if biased else None
    layer.punica_wrapper._token_lora_indices = tokens
    expected = layer._apply_lora_to_output(x, apply_gains(output.clone(), bias, table, tokens))
    found = output.clone()
    add_grouped(layer, x, found, bias, table, [True, False, True], group_tokens(tokens))
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[tokens < 0], output[tokens < 0])
