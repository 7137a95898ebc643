"""Tokens grouped by their adapters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.engine.adapter_mapping import BASE_SLOT, AdapterGroup, AdapterMapping, TokenAdapters

CPU = torch.device("cpu")
PAIRS = st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
MAPPINGS = st.lists(st.lists(PAIRS, max_size=3).map(tuple), max_size=40)


def make_mapping(by_token: list[TokenAdapters], *, stacked: bool = False) -> AdapterMapping:
    mapping = AdapterMapping()
    mapping.update(by_token, CPU, stacked=stacked)
    return mapping


def tokens_of(mapping: AdapterMapping, group: AdapterGroup) -> list[int]:
    rows = range(group.tokens.start, group.tokens.stop)
    return list(rows) if mapping.token_order is None else [int(mapping.token_order[row]) for row in rows]


def expected(by_token: list[TokenAdapters]) -> dict[tuple[int, int], float]:
    """Weight by slot and token, straight from the definition."""
    weights: dict[tuple[int, int], float] = {}
    for token, adapters in enumerate(by_token):
        for slot, weight in adapters:
            if slot != BASE_SLOT and weight:
                weights[slot, token] = weights.get((slot, token), 0.0) + weight
    return weights


@given(MAPPINGS)
def test_groups_hold_every_token_of_an_adapter_with_its_weight(by_token: list[TokenAdapters]) -> None:
    mapping = make_mapping(by_token)
    found: dict[tuple[int, int], float] = {}
    for group in mapping.groups:
        tokens = tokens_of(mapping, group)
        weights = [1.0] * len(tokens) if group.weight is None else group.weight[:, 0].tolist()
        found |= {(group.slot, token): weight for token, weight in zip(tokens, weights, strict=True)}
    assert found == expected(by_token)
    assert sum(group.tokens.stop - group.tokens.start for group in mapping.groups) == len(found)


@given(MAPPINGS)
def test_padded_groups_hold_the_same_and_give_padding_no_weight(by_token: list[TokenAdapters]) -> None:
    padded = make_mapping(by_token, stacked=True).padded_groups
    if padded is not None:
        weights = torch.ones(*padded.token_index.shape, 1) if padded.weight is None else padded.weight
        found: dict[tuple[int, int], float] = {}
        for slot, tokens, row in zip(padded.slots, padded.token_index.tolist(), weights[..., 0].tolist(), strict=True):
            assert all((slot, token) in expected(by_token) for token in tokens), "padding touches a token of another group"
            found |= {(slot, token): weight for token, weight in zip(tokens, row, strict=True) if weight}
        assert found == expected(by_token)


def test_contiguous_tokens_are_not_moved() -> None:
    assert make_mapping([(), ((2, 1.0),), ((2, 1.0),), ((1, 1.0),)]).token_order is None
    assert make_mapping([((2, 1.0),), (), ((2, 1.0),)]).token_order is not None


def test_groups_are_not_padded_to_the_length_of_a_prompt() -> None:
    replies: list[TokenAdapters] = [((1 + i % 4, 1.0),) for i in range(8)]
    assert make_mapping(replies, stacked=True).padded_groups is not None
    assert make_mapping([*replies, *[((1, 1.0),)] * 100], stacked=True).padded_groups is None


def test_a_cleared_mapping_fits_any_pass() -> None:
    mapping = make_mapping([((1, 1.0),)])
    mapping.clear()
    assert (mapping.groups, mapping.by_token) == ((), ())


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_rejected(weight: float) -> None:
    with pytest.raises(ValueError, match="token 1 uses slot 3"):
        make_mapping([(), ((3, weight),)])
