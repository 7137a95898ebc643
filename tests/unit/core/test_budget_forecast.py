"""The budget forecast: the filled share grows with the budget, and a plain computation agrees."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from compass_ray.core.budget_forecast import forecast_budget

GRID = (0.2, 0.5, 1.0, 2.0, 10.0)
counts = st.lists(st.one_of(st.just(0), st.integers(0, 200)), min_size=5, max_size=5)


@st.composite
def problems(draw: Callable[..., object]) -> dict[str, object]:
    """Any counts of four clusters and noise, with a guide set that is not empty."""
    return {
        "n_target": draw(counts),
        "n_aux": draw(counts),
        "n_eval": draw(counts.filter(any)),
        "budgets": sorted(draw(st.sets(st.floats(0.2, 10), min_size=1, max_size=6))),
        "share": draw(st.floats(0, 1)),
        "weights": draw(st.sampled_from(("ratio", "deficit", "none"))),
        "overflow": draw(st.sampled_from(("redistribute", "repeat"))),
    }


@given(problems())
def test_a_larger_budget_fills_no_less_and_the_smallest_sufficient_one_is_the_forecast(problem: dict[str, object]) -> None:
    found = forecast_budget(**problem)
    assert ((found.filled >= 0) & (found.filled <= 1)).all()
    assert (np.diff(found.filled) >= 0).all()
    enough = [b for b, filled in zip(found.budgets, found.filled, strict=True) if filled >= problem["share"] * found.filled[-1]]
    assert found.suggestion == min(enough)


@given(counts.filter(any), st.integers(1, 4), st.floats(0, 1))
def test_without_a_gap_the_smallest_budget_is_enough(n_eval: list[int], times: int, share: float) -> None:
    found = forecast_budget([times * n for n in n_eval], [999] * 5, n_eval, GRID, share=share)
    assert found.suggestion == GRID[0]
    assert (found.filled == 1.0).all()


@given(counts, counts.filter(any))
def test_without_candidates_the_smallest_budget_is_enough(n_target: list[int], n_eval: list[int]) -> None:
    assert forecast_budget(n_target, [0] * 5, n_eval, GRID).suggestion == GRID[0]


def _added_rows(n_target: np.ndarray, n_eval: np.ndarray, budget: float) -> np.ndarray:
    """Fractions of rows by the paper's weights with unlimited candidates; the last cluster is noise."""
    weights = np.append(n_eval[:-1] / (n_target[:-1] + 1), 0.0)
    return np.asarray(weights / weights.sum() * round(budget * n_target.sum()))


def _reckoned(n_target: np.ndarray, n_eval: np.ndarray, budget: float) -> float:
    """The share of the gap that these rows fill."""
    added = np.rint(_added_rows(n_target, n_eval, budget))
    return float(1 - jensenshannon(n_eval, n_target + added, base=2) ** 2 / jensenshannon(n_eval, n_target, base=2) ** 2)


@given(st.lists(st.integers(1, 200), min_size=5, max_size=5), st.lists(st.integers(1, 40), min_size=5, max_size=5))
def test_a_plain_computation_agrees(n_target: list[int], n_eval: list[int]) -> None:
    target, asked = np.array(n_target), np.array(n_eval)
    if jensenshannon(asked, target, base=2) ** 2 < 1e-9:
        return
    if any((np.abs(_added_rows(target, asked, b) % 1 - 0.5) < 1e-9).any() for b in GRID):
        return  # the last bit decides to which side half a row is rounded
    plain = np.maximum.accumulate([max(0.0, _reckoned(target, asked, b)) for b in GRID])
    found = forecast_budget(target, [10**6] * 5, asked, GRID)
    assert found.filled == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("budgets", [[], [1.0, 0.5], [0.5, 0.5], [[0.5]]])
def test_budgets_not_in_ascending_order_are_refused(budgets: list[float]) -> None:
    with pytest.raises(ValueError, match="in ascending order"):
        forecast_budget([1, 0], [1, 0], [1, 0], budgets)


def test_an_empty_guide_set_and_a_share_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="all counts are zero"):
        forecast_budget([1, 0], [1, 0], [0, 0], GRID)
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        forecast_budget([1, 0], [1, 0], [1, 0], GRID, share=1.5)
