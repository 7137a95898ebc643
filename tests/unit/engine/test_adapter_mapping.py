"""Tokens grouped by the adapters they wear."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.engine.adapter_mapping import BASE_SLOT, AdapterGroup, AdapterMapping, TokenAdapters

CPU = torch.device("cpu")
PAIRS = st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
WEARS = st.lists(st.lists(PAIRS, max_size=3).map(tuple), max_size=40)


def routed(wears: list[TokenAdapters], *, stacked: bool = False) -> AdapterMapping:
    routing = AdapterMapping()
    routing.update(wears, CPU, stacked=stacked)
    return routing


def tokens_of(routing: AdapterMapping, group: AdapterGroup) -> list[int]:
    rows = range(group.tokens.start, group.tokens.stop)
    return list(rows) if routing.token_order is None else [int(routing.token_order[row]) for row in rows]


def expected(wears: list[TokenAdapters]) -> dict[tuple[int, int], float]:
    """Weight by slot and token, by the plainest reading of the definition."""
    found: dict[tuple[int, int], float] = {}
    for token, wear in enumerate(wears):
        for slot, weight in wear:
            if slot != BASE_SLOT and weight:
                found[slot, token] = found.get((slot, token), 0.0) + weight
    return found


@given(WEARS)
def test_groups_hold_every_token_of_an_adapter_with_its_weight(wears: list[TokenAdapters]) -> None:
    routing = routed(wears)
    found: dict[tuple[int, int], float] = {}
    for group in routing.groups:
        tokens = tokens_of(routing, group)
        weights = [1.0] * len(tokens) if group.weight is None else group.weight[:, 0].tolist()
        found |= {(group.slot, token): weight for token, weight in zip(tokens, weights, strict=True)}
    assert found == expected(wears)
    assert sum(group.tokens.stop - group.tokens.start for group in routing.groups) == len(found)


@given(WEARS)
def test_groups_side_by_side_hold_the_same_and_weigh_what_was_filled_in_with_nothing(wears: list[TokenAdapters]) -> None:
    padded = routed(wears, stacked=True).padded_groups
    if padded is not None:
        weights = torch.ones(*padded.token_index.shape, 1) if padded.weight is None else padded.weight
        found: dict[tuple[int, int], float] = {}
        for slot, tokens, row in zip(padded.slots, padded.token_index.tolist(), weights[..., 0].tolist(), strict=True):
            assert all((slot, token) in expected(wears) for token in tokens), "a filled place touches a token of another"
            found |= {(slot, token): weight for token, weight in zip(tokens, row, strict=True) if weight}
        assert found == expected(wears)


def test_tokens_that_stand_together_are_not_moved() -> None:
    assert routed([(), ((2, 1.0),), ((2, 1.0),), ((1, 1.0),)]).token_order is None
    assert routed([((2, 1.0),), (), ((2, 1.0),)]).token_order is not None


def test_a_prompt_beside_replies_is_not_padded_to() -> None:
    replies: list[TokenAdapters] = [((1 + i % 4, 1.0),) for i in range(8)]
    assert routed(replies, stacked=True).padded_groups is not None
    assert routed([*replies, *[((1, 1.0),)] * 100], stacked=True).padded_groups is None


def test_a_cleared_routing_fits_any_pass() -> None:
    routing = routed([((1, 1.0),)])
    routing.clear()
    assert (routing.groups, routing.by_token) == ((), ())


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="token 1 wears slot 3"):
        routed([(), ((3, weight),)])
