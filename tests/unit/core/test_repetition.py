"""Repeated rows: each once before any twice, never four times."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.repetition import repeat_rows


@given(st.integers(0, 40), st.data())
def test_uses_are_even_and_halve_in_weight(n: int, data: st.DataObject) -> None:
    quota = data.draw(st.integers(0, 3 * n))
    plan = repeat_rows(n, quota)
    seen: Counter[int] = Counter()
    for position, weight in zip(plan.position.tolist(), plan.weight.tolist(), strict=True):
        assert weight == 0.5 ** seen[position]
        seen[position] += 1
    assert sum(seen.values()) == quota
    assert not seen or max(seen.values()) - min(seen.get(i, 0) for i in range(n)) <= 1


@pytest.mark.parametrize(("n", "quota"), [(0, 1), (2, 7), (3, -1)])
def test_more_than_three_uses_are_refused(n: int, quota: int) -> None:
    with pytest.raises(ValueError, match="at most 3 times"):
        repeat_rows(n, quota)
