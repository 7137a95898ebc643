"""Repeated rows: each once before any twice, never four times."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.repetition import repeat_evenly, repeat_rows


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


@given(st.integers(0, 20), st.integers(0, 70), st.integers(0, 9))
def test_own_rows_repeat_evenly_without_limit(n: int, count: int, seed: int) -> None:
    uses = repeat_evenly(n, count, np.random.default_rng(seed))
    assert len(uses) == (count if n else 0)
    counts = np.bincount(uses, minlength=max(n, 1))[:n]
    assert not n or counts.max() - counts.min() <= 1


def test_the_rows_of_the_last_pass_are_random() -> None:
    counts = np.bincount(np.concatenate([repeat_evenly(5, 2, np.random.default_rng(seed)) for seed in range(5000)]))
    assert counts == pytest.approx(2000, rel=0.1)
