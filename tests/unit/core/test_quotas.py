"""Quotas: integers, exact sum, unbiased, and as close to the guide set as brute force."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.cluster_weights import cluster_weights
from compass_ray.core.distribution import js_divergence
from compass_ray.core.quotas import MAX_REPEATS, allocate_quotas, budget_rows, expected_quotas, max_rows_per_cluster

WEIGHTS = ("ratio", "deficit", "none")
OVERFLOWS = ("redistribute", "repeat")


@st.composite
def problems(draw: Callable[..., object]) -> dict[str, object]:
    """Any counts, with gaps and empty clusters likely."""
    k = draw(st.integers(1, 30))
    some = st.lists(st.one_of(st.just(0), st.integers(0, 300)), min_size=k, max_size=k)
    return {
        "n_target": draw(some),
        "n_aux": draw(some),
        "n_eval": draw(some),
        "budget": draw(st.integers(0, 3000)),
        "weights": draw(st.sampled_from(WEIGHTS)),
        "overflow": draw(st.sampled_from(OVERFLOWS)),
        "rng": np.random.default_rng(draw(st.integers(0, 99))),
    }


@given(problems())
def test_the_sum_is_the_budget_or_all_candidates(problem: dict[str, object]) -> None:
    quota = allocate_quotas(**problem)
    limit = np.array(problem["n_aux"]) * (MAX_REPEATS if problem["overflow"] == "repeat" else 1)
    asked = np.array(problem["n_eval"]) > 0
    eligible = asked if problem["weights"] != "none" else np.ones_like(asked)
    assert quota.dtype == np.int64
    assert (quota >= 0).all()
    assert (quota <= limit).all()
    assert (quota[~eligible] == 0).all()
    assert quota.sum() == min(problem["budget"], limit[eligible].sum())


@given(problems(), st.floats(0.2, 10.0))
def test_any_budget_of_the_target_s_rows_is_filled_as_far_as_candidates_allow(problem: dict[str, object], factor: float) -> None:
    budget = budget_rows(factor, int(np.sum(problem["n_target"])))
    quota = allocate_quotas(**{**problem, "budget": budget})
    limit = max_rows_per_cluster(problem["n_aux"], problem["overflow"])
    eligible = (np.array(problem["n_eval"]) > 0) | (problem["weights"] == "none")
    assert quota.sum() == min(budget, limit[eligible].sum())
    assert (quota <= limit * eligible).all()


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_over_seeds_the_mean_is_weight_times_budget(weights: str, overflow: str) -> None:
    n_target, n_eval, plenty = [7, 0, 31, 2, 5], [3, 1, 4, 0, 2], [999] * 5
    rng = np.random.default_rng(0)
    runs = np.array(
        [allocate_quotas(n_target, plenty, n_eval, 23, weights=weights, overflow=overflow, rng=rng) for _ in range(4000)]
    )
    due = cluster_weights(n_target, n_eval, 23, weights=weights) * 23
    assert runs.mean(axis=0) == pytest.approx(due, abs=0.04)
    assert (np.abs(runs - due) < 1).all()


def test_excess_goes_to_the_others_in_proportion_to_weight() -> None:
    quota = allocate_quotas([0, 0, 1, 1], [5, 90, 90, 90], [4, 2, 2, 0], 35, rng=np.random.default_rng(0))
    assert quota.tolist() == [5, 20, 10, 0]


def test_redistributed_excess_is_redistributed_again() -> None:
    quota = allocate_quotas([0] * 4, [1, 6, 9, 100], [8, 4, 2, 2], 32, rng=np.random.default_rng(0))
    assert quota.tolist() == [1, 6, 9, 16]


@given(st.lists(st.integers(0, 6), min_size=3, max_size=3), st.lists(st.integers(1, 5), min_size=3, max_size=3))
def test_deficit_comes_as_close_as_any_allocation(n_target: list[int], n_eval: list[int]) -> None:
    budget, n_aux = 6, [4, 4, 4]
    every = [q for q in product(range(5), repeat=3) if sum(q) == budget]
    best = min(js_divergence(n_eval, np.add(n_target, q)) for q in every)
    rng = np.random.default_rng(0)
    found = [
        js_divergence(n_eval, n_target + allocate_quotas(n_target, n_aux, n_eval, budget, weights="deficit", rng=rng))
        for _ in range(30)
    ]
    assert min(found) <= best + 0.02


def test_rows_after_the_gaps_follow_the_guide_set() -> None:
    quota = allocate_quotas([0, 0, 0], [10, 990, 990], [1, 2, 1], 310, weights="deficit", rng=np.random.default_rng(0))
    assert quota.tolist() == [10, 200, 100]


@given(problems())
def test_equal_seeds_give_equal_quotas(problem: dict[str, object]) -> None:
    first, again = (allocate_quotas(**{**problem, "rng": np.random.default_rng(5)}) for _ in range(2))
    assert first.tolist() == again.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_aux": [1]}, "same number"),
        ({"n_eval": [-1, 1]}, "0 or more"),
        ({"n_eval": [0.5, 1]}, "whole numbers"),
        ({"budget": -1}, "budget is -1"),
        ({"budget": 0.5}, "budget is 0.5"),
        ({"budget": np.inf}, "budget is inf"),
        ({"budget": "5"}, "budget is '5'"),
        ({"n_target": ["1", "2"]}, "n_target has type"),
        ({"weights": "rato"}, "ratio, deficit, none"),
        ({"overflow": "drop"}, "redistribute, repeat"),
    ],
)
def test_errors_name_the_given_value(change: dict[str, object], message: str) -> None:
    arguments = {"n_target": [1, 1], "n_aux": [5, 5], "n_eval": [1, 1], "budget": 2, **change}
    with pytest.raises(ValueError, match=message):
        allocate_quotas(**arguments, rng=np.random.default_rng(0))


@pytest.mark.parametrize("weights", ["ratio", "deficit", "none"])
@pytest.mark.parametrize("seed", range(40))
def test_the_sum_is_exact_for_billions_of_rows_too(weights: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_target, n_aux, n_eval = (rng.integers(0, 10**8, 30) for _ in range(3))
    budget = int(rng.integers(10**8, 3 * 10**9))
    quota = allocate_quotas(n_target, n_aux, n_eval, budget, weights=weights, rng=rng)
    open_ = np.ones(30, bool) if weights == "none" else n_eval > 0
    assert quota.sum() == min(budget, n_aux[open_].sum())
    assert (quota <= n_aux).all()


def test_budget_is_a_factor_of_the_target_rows() -> None:
    assert budget_rows(0.8, 1250) == 1000
    assert max_rows_per_cluster([1, 2], "redistribute").tolist() == [1, 2]
    with pytest.raises(ValueError, match="factor"):
        budget_rows(-0.1, 10)


@given(problems())
def test_expected_quotas_have_the_same_sum_and_differ_by_less_than_a_row(problem: dict[str, object]) -> None:
    expected = expected_quotas(**{key: value for key, value in problem.items() if key != "rng"})
    quota = allocate_quotas(**problem)
    assert expected.sum() == pytest.approx(quota.sum())
    assert (np.abs(expected - quota) < 1).all()
