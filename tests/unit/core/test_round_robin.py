"""Caps and turns: never exceeded in any order of arrival, and many corrections of one key displace no other key."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.near_duplicates import REFRESH_ROWS
from compass_ray.core.round_robin import find_kept_duplicates, max_corrections, nearest_cosine, round_robin_order

_said = st.dictionaries(st.text("abcdef", min_size=1, max_size=6), st.sampled_from(["", "k1", "k2", "k3"]), max_size=40)


@given(_said, st.integers(0, 3), st.randoms())
def test_the_order_of_arrival_changes_nothing(said: dict[str, str], seed: int, chance: object) -> None:
    names = list(said)
    shuffled = sorted(names, key=lambda _: chance.random())  # type: ignore[attr-defined]
    one, other = (round_robin_order(each, [said[name] for name in each], seed) for each in (names, shuffled))
    assert [names[i] for i in one.position] == [shuffled[i] for i in other.position]
    assert one.turn.tolist() == other.turn.tolist()


@given(_said, st.integers(0, 40))
def test_for_any_cap_no_key_has_two_more_than_a_key_that_lost_some(said: dict[str, str], kept: int) -> None:
    names, keys = list(said), list(said.values())
    found = round_robin_order(names, keys, seed=0)
    assert sorted(found.position.tolist()) == list(range(len(names)))
    got, all_of = Counter(keys[i] for i in found.position[:kept]), Counter(keys)
    short = [got[key] for key in all_of if got[key] < all_of[key]]
    assert not short or max(got.values(), default=0) <= min(short) + 1


@given(_said)
def test_a_turn_counts_the_earlier_items_of_its_key(said: dict[str, str]) -> None:
    keys = list(said.values())
    found = round_robin_order(list(said), keys, seed=0)
    before: Counter[str] = Counter()
    for position, turn in zip(found.position, found.turn, strict=True):
        assert turn == before[keys[position]]
        before[keys[position]] += 1


def test_another_seed_gives_another_order() -> None:
    names = [str(i) for i in range(100)]
    assert (
        round_robin_order(names, ["k"] * 100, 0).position.tolist() != round_robin_order(names, ["k"] * 100, 1).position.tolist()
    )


def test_repeated_names_are_refused() -> None:
    with pytest.raises(ValueError, match="2 names, 1 distinct, and 2 keys"):
        round_robin_order(["a", "a"], ["k", "k"], 0)


@given(st.integers(0, 100_000), st.floats(0, 0.99))
def test_the_share_is_never_exceeded_and_one_more_would(rows: int, share: float) -> None:
    most = max_corrections(rows, share)
    assert most == 0 or most / (rows + most) <= share
    assert (most + 1) / (rows + most + 1) > share


@pytest.mark.parametrize(("rows", "share"), [(-1, 0.1), (1, 1.0), (1, -0.1)])
def test_impossible_shares_are_refused(rows: int, share: float) -> None:
    with pytest.raises(ValueError, match="expected 0 or more rows"):
        max_corrections(rows, share)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(-0.5, 0.99))
def test_kept_rows_are_not_near_each_other_and_dropped_rows_are_near_a_kept_one(seed: int, n: int, tau: float) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = find_kept_duplicates(rows, tau)
    for i in range(n):
        stays_before = [j for j in range(i) if found[j] < 0]
        near = [j for j in stays_before if float(unit[i] @ unit[j]) > tau + 1e-6]
        if found[i] < 0:
            assert not near
        else:
            assert found[i] in stays_before
            assert float(unit[i] @ unit[found[i]]) > tau - 1e-6


def test_without_others_the_cosine_is_minus_1() -> None:
    assert find_kept_duplicates(np.zeros((0, 3)), 0.9).tolist() == []
    assert nearest_cosine([[1.0, 0.0]], lambda at: np.zeros((len(at), 2), np.float32), 0).tolist() == [-1.0]


def test_the_nearest_row_is_found_in_any_block() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(size=(2 * REFRESH_ROWS + 3, 8)).astype(np.float32)
    asked = rng.normal(size=(5, 8)).astype(np.float32)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (asked, others)]
    found = nearest_cosine(asked, lambda at: others[at], len(others))
    np.testing.assert_allclose(found, (unit[0] @ unit[1].T).max(axis=1), rtol=1e-5)
