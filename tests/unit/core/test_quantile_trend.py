"""Trend over quantiles: its p-value is the share of all orders, by enumeration."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from compass_ray.core.quantile_trend import measure_trend

VALUES = st.lists(st.integers(0, 9).map(float), min_size=5, max_size=5)


@given(VALUES)
@settings(max_examples=40)
def test_in_one_language_it_is_spearman_and_the_share_of_all_orders(values: list[float]) -> None:
    trend = measure_trend(values)
    if len(set(values)) == 1:
        assert (trend.correlation, trend.p_value) == (None, 1.0)
        return
    ranks = rankdata(values)
    sums = [float(np.dot(order, range(5))) for order in permutations(ranks)]
    assert trend.correlation == pytest.approx(spearmanr(range(5), values).statistic)
    assert trend.p_value == pytest.approx(np.mean(np.array(sums) >= np.dot(ranks, range(5)) - 1e-9))


@given(st.lists(st.permutations([1.0, 2.0, 3.0, 4.0]), min_size=2, max_size=2))
@settings(max_examples=15)
def test_in_two_languages_orders_are_enumerated_within_each(table: list[list[float]]) -> None:
    """576 pairs of orders of four quantiles."""
    trend = measure_trend(table)
    each = [spearmanr(range(4), row).statistic for row in table]
    rho = [spearmanr(range(4), order).statistic for order in permutations(range(4))]
    assert trend.correlation == pytest.approx(np.mean(each))
    assert trend.p_value == pytest.approx(np.mean([np.mean(pair) >= np.mean(each) - 1e-9 for pair in product(rho, rho)]))


def test_a_rise_in_every_language_has_the_smallest_p_and_a_fall_the_largest() -> None:
    rise = np.tile(np.arange(5.0), (5, 1))
    assert measure_trend(rise).correlation == 1.0
    assert measure_trend(rise).p_value == pytest.approx(120.0**-5)
    assert measure_trend(-rise).p_value == pytest.approx(1.0)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, float("nan"), 3.0], np.zeros((0, 5))])
def test_too_few_quantiles_and_missing_values_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match="expected a finite value"):
        measure_trend(values)
