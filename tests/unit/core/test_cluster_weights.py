"""Cluster weights: the printed ratio by hand, the deficit by its defining property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.cluster_weights import cluster_weights, deficit_weights, equal_weights, ratio_weights

few = st.lists(st.integers(0, 50), min_size=6, max_size=6)


@given(few, few)
def test_ratio_is_the_formula_of_the_paper(n_target: list[int], n_eval: list[int]) -> None:
    raw = [e / (t + 1) for t, e in zip(n_target, n_eval, strict=True)]
    expected = np.array(raw) / sum(raw) if sum(raw) else np.zeros(6)
    assert ratio_weights(n_target, n_eval) == pytest.approx(expected)


@given(few, few.filter(any), st.integers(1, 500))
def test_deficit_equalises_the_filled_clusters(n_target: list[int], n_eval: list[int], budget: int) -> None:
    added = deficit_weights(n_target, n_eval, budget) * budget
    assert added.sum() == pytest.approx(budget)
    asked = np.array(n_eval) > 0
    level = (np.array(n_target) + added)[asked] / np.array(n_eval)[asked]
    filled = added[asked] > 1e-9
    assert level[filled] == pytest.approx(level[filled][0])
    assert (level[~filled] >= level[filled][0] - 1e-6).all()


def test_without_guide_rows_all_weights_are_0() -> None:
    assert not cluster_weights([1, 2], [0, 0], 5, weights="ratio").any()
    assert not cluster_weights([1, 2], [0, 0], 5, weights="deficit").any()
    assert cluster_weights([1, 2], [0, 0], 5, weights="none").tolist() == equal_weights(2).tolist()


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="'inverse'; choose one of ratio, deficit, none"):
        cluster_weights([1], [1], 1, weights="inverse")
