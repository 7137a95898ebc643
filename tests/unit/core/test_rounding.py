"""Rounding to a total: floor or ceiling, exact sum, unbiased; and the level of water-filling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from compass_ray.core.rounding import round_to_total
from compass_ray.core.water_filling import water_fill


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 50)), st.integers(0, 500), st.integers(0, 9))
def test_each_entry_becomes_its_floor_or_ceiling(parts: np.ndarray, total: int, seed: int) -> None:
    amounts = parts / parts.sum() * total if parts.sum() > 1e-3 else np.full(len(parts), total / len(parts))
    whole = round_to_total(amounts, total, rng=np.random.default_rng(seed))
    assert whole.sum() == total
    assert (np.abs(whole - amounts) < 1 + 1e-6).all()


def test_remainders_are_unbiased() -> None:
    amounts, rng = np.array([0.1, 0.9, 1.25, 0.75, 2.0]), np.random.default_rng(0)
    mean = np.mean([round_to_total(amounts, 5, rng=rng) for _ in range(5000)], axis=0)
    assert mean == pytest.approx(amounts, abs=0.03)


def test_amounts_that_miss_the_total_are_refused() -> None:
    with pytest.raises(ValueError, match="miss the total"):
        round_to_total(np.array([0.5, 0.1]), 4, rng=np.random.default_rng(0))


@st.composite
def basins(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    k = draw(st.integers(1, 12))
    rate, floor = (draw(arrays(np.float64, k, elements=st.integers(0, 20).map(float))) for _ in range(2))
    cap = draw(arrays(np.float64, k, elements=st.integers(0, 60).map(float)))
    return rate, floor, cap, float(draw(st.integers(0, 300)))


@given(basins())
def test_the_level_is_the_root_of_a_solver(basin: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    rate, floor, cap, total = basin
    contents = water_fill(rate, floor, cap, total)
    reachable = cap[rate > 0].sum()
    assert contents.sum() == pytest.approx(min(total, reachable), abs=1e-9)
    if 0 < total < reachable:
        at = lambda level: np.clip(level * rate - floor, 0, cap) * (rate > 0)  # noqa: E731
        level = brentq(lambda x: at(x).sum() - total, 0, 1e4, xtol=1e-12)
        assert contents == pytest.approx(at(level), abs=1e-6)
