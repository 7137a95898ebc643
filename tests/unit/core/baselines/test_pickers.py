"""Pickers return the requested number of rows, each once, and only allowed rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.baselines.pickers import (
    QUANTILES,
    PermutedPicker,
    Picker,
    QuantilePicker,
    SubsetPicker,
    TopKPicker,
    UniformPicker,
    UniformSubsetPicker,
)
from compass_ray.core.quotas import Overflow
from compass_ray.core.seeds import generator
from compass_ray.core.selection import DRAWN_BY_QUOTA, Candidates, Method, SelectionRule, select_rows

SCORES = st.lists(st.one_of(st.just(float("nan")), st.floats(-5, 5)), max_size=40).map(np.array)


@given(SCORES, st.integers(0, 50))
def test_every_picker_returns_distinct_rows_up_to_the_count(given_scores: np.ndarray, count: int) -> None:
    scores = given_scores.astype(float)
    allowed, n = np.flatnonzero(~np.isnan(scores)), len(scores)
    pickers: list[tuple[Picker, int]] = [
        (UniformPicker(n), n),
        (TopKPicker(np.nan_to_num(scores)), n),
        (UniformSubsetPicker(scores), len(allowed)),
    ]
    for picker, available in pickers:
        picked = picker(count, np.random.default_rng(0))
        assert len(picked.position) == len(picked.score) == min(count, available)
        assert len(set(picked.position.tolist())) == len(picked.position)
    assert set(UniformSubsetPicker(scores)(count, np.random.default_rng(0)).position) <= set(allowed)
    assert SubsetPicker(scores)(count, np.random.default_rng(0)).position.tolist() == allowed.tolist()


def test_ties_go_to_the_earlier_row_in_the_order_given() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.9, 0.5])
    assert TopKPicker(scores)(4, np.random.default_rng(0)).position.tolist() == [1, 3, 0, 2]
    backwards = np.arange(5)[::-1]
    found = PermutedPicker(backwards, TopKPicker(scores[backwards]))(4, np.random.default_rng(0))
    assert found.position.tolist() == [3, 1, 4, 2]
    assert found.score.tolist() == [0.9, 0.9, 0.5, 0.5]


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 30), st.integers(1, QUANTILES))
def test_a_quantile_holds_a_fifth_of_the_candidates_and_every_one_gives_as_many(
    values: list[int], count: int, quantile: int
) -> None:
    scores = np.array(values, float)
    picked = QuantilePicker(scores, quantile)(count, np.random.default_rng(0))
    n, position = len(values), picked.position.tolist()
    assert len(position) == len(set(position)) == min(count, n // QUANTILES)
    assert picked.score.tolist() == [values[i] for i in position]
    for i in position:
        above = sum(value > values[i] for value in values)
        not_below = sum(value >= values[i] for value in values)
        assert above < n * quantile / QUANTILES + 1, "too far for its fifth"
        assert not_below > n * (quantile - 1) / QUANTILES - 1, "too near for its fifth"


def test_the_five_quantiles_are_all_candidates_from_near_to_far() -> None:
    scores = np.random.default_rng(0).permutation(20).astype(float)
    drawn = [QuantilePicker(scores, q)(9, np.random.default_rng(q)) for q in range(1, QUANTILES + 1)]
    assert [sorted(each.score.tolist(), reverse=True) for each in drawn] == [[19 - 4 * q - i for i in range(4)] for q in range(5)]


def test_a_quantile_is_drawn_uniformly() -> None:
    scores, rng = np.arange(10.0), np.random.default_rng(0)
    wide = np.repeat(scores, 2)
    counts = np.bincount(np.concatenate([QuantilePicker(wide, 5)(1, rng).position for _ in range(4000)]), minlength=20)
    assert counts[4:].sum() == 0
    assert counts[:4] == pytest.approx(1000, rel=0.1)


def test_uniform_pickers_are_uniform() -> None:
    among = UniformSubsetPicker(np.array([1.0, np.nan, 2.0, 3.0]))
    rng = np.random.default_rng(0)
    counts = np.bincount(np.concatenate([among(2, rng).position for _ in range(6000)]), minlength=4)
    assert counts[1] == 0
    assert counts[[0, 2, 3]] == pytest.approx(4000, rel=0.05)


@pytest.fixture
def pool() -> Candidates:
    labels = np.repeat([0, 1, -1], [10, 10, 10])
    return Candidates(labels, np.full(30, 0.5), np.zeros(30), lambda i: np.ones((len(i), 2), np.float32))


NO_BASELINES = {*DRAWN_BY_QUOTA, Method.TARGET, Method.RANDOM, Method.OWN_REPEATED}
BASELINES = [method for method in Method if method not in NO_BASELINES]


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_picks_as_many_rows_as_compass_noise_included(pool: Candidates, method: Method) -> None:
    picker = TopKPicker(np.arange(30.0))
    chosen = select_rows([0] * 15, [0, 1], pool, 2, SelectionRule(method), seed=0, language="sw", picker=picker)
    ours = select_rows([0] * 15, [0, 1], pool, 2, SelectionRule(), seed=0, language="sw")
    assert len(chosen.rows) == len(ours.rows) == 12
    assert sorted(chosen.rows.index) == list(range(18, 30))
    assert chosen.rows.cluster.tolist() == [-1] * 10 + [1] * 2
    assert chosen.rows.order.tolist() == [*range(10), 0, 1]
    assert chosen.rows.score.tolist() == [*range(29, 19, -1), 19, 18]


def test_a_baseline_without_its_picker_is_refused(pool: Candidates) -> None:
    with pytest.raises(ValueError, match="method 'dsir' needs a picker"):
        select_rows([0] * 15, [0, 1], pool, 2, SelectionRule(Method.DSIR), seed=0, language="sw")


@pytest.mark.parametrize(("overflow", "expected"), [(Overflow.REDISTRIBUTE, 4), (Overflow.REPEAT, 12)])
def test_too_few_rows_are_repeated_only_with_overflow_repeat(pool: Candidates, overflow: Overflow, expected: int) -> None:
    scores = np.where(np.arange(30) % 9 == 0, 0.7, np.nan)
    rule = SelectionRule(Method.LANGSIM, overflow=overflow)
    chosen = select_rows([0] * 15, [0, 1], pool, 2, rule, seed=0, language="sw", picker=UniformSubsetPicker(scores))
    assert len(chosen.rows) == expected
    assert set(chosen.rows.index) == {0, 9, 18, 27}
    assert sorted(set(chosen.rows.weight)) == [0.25, 0.5, 1.0][-expected // 4 :]


def test_random_draws_are_unchanged(pool: Candidates) -> None:
    chosen = select_rows([0] * 15, [0, 1], pool, 2, SelectionRule(Method.RANDOM), seed=3, language="sw")
    drawn = generator(3, "random", "sw").choice(30, size=12, replace=False)
    assert sorted(chosen.rows.index) == sorted(drawn)
