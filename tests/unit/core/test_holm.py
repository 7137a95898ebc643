"""Holm's correction against its definition as a closed test."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.holm import holm


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_it_is_the_closed_test_of_bonferroni(p: list[float]) -> None:
    """A hypothesis is rejected if each intersection that contains it is rejected by Bonferroni's test."""
    n = len(p)
    subsets = [s for size in range(1, n + 1) for s in combinations(range(n), size)]
    closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(n)]
    assert holm(p).tolist() == pytest.approx(closed)


def test_a_value_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.1, 1.2])
