"""Contributions are compared with counts over single rows, in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.contributions import contributions

SOURCES = 5
LABELS = ("a", "b", "")


@st.composite
def selections(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[int]]:
    """Added rows, the pool, and each target's own source; no more rows than candidates."""
    pool = draw(st.lists(st.integers(0, 9), min_size=SOURCES, max_size=SOURCES))
    own = draw(st.lists(st.integers(-1, SOURCES - 1), min_size=1, max_size=4))
    added = [[0 if s == o else draw(st.integers(0, pool[s])) for s in range(SOURCES)] for o in own]
    return added, pool, own


def _expected(added: list[list[int]], pool: list[int], own: list[int], target: int, source: int) -> Fraction:
    """Rows of a source among as many as were added, each drawn from a list of all candidates."""
    candidates = [s for s in range(SOURCES) for _ in range(pool[s]) if s != own[target]]
    if not candidates:
        return Fraction(0)
    return Fraction(sum(added[target]) * candidates.count(source), len(candidates))


def _close(found: float, numerator: Fraction, denominator: Fraction) -> bool:
    if denominator == 0:
        return math.isnan(found)
    return found == pytest.approx(float(numerator / denominator))


@given(selections())
def test_lift_and_shares_are_those_of_single_rows(drawn: tuple[list[list[int]], list[int], list[int]]) -> None:
    added, pool, own = drawn
    found = contributions(added, pool, own)
    for t in range(len(own)):
        total = Fraction(sum(added[t]))
        for s in range(SOURCES):
            wanted = _expected(added, pool, own, t, s)
            assert _close(found.lift[t, s], Fraction(added[t][s]), wanted)
            assert _close(found.share[t, s], Fraction(added[t][s]), total)
            assert _close(found.expected_share[t, s], wanted, total)


@given(selections(), st.data())
def test_groups_add_up_their_members(drawn: tuple[list[list[int]], list[int], list[int]], data: st.DataObject) -> None:
    added, pool, own = drawn
    targets = data.draw(st.lists(st.integers(-1, 2), min_size=len(own), max_size=len(own)))
    sources = data.draw(st.lists(st.integers(-1, 2), min_size=SOURCES, max_size=SOURCES))
    found = contributions(added, pool, own).grouped(targets, sources)
    assert found.observed.shape == (max(targets) + 1, max(sources) + 1)
    for g in range(max(targets) + 1):
        for h in range(max(sources) + 1):
            cells = [(t, s) for t in range(len(own)) for s in range(SOURCES) if targets[t] == g and sources[s] == h]
            assert found.observed[g, h] == sum(added[t][s] for t, s in cells)
            assert found.expected[g, h] == pytest.approx(float(sum(_expected(added, pool, own, t, s) for t, s in cells)))


@given(selections(), st.data())
def test_rows_within_a_label_are_those_of_sources_with_that_label(
    drawn: tuple[list[list[int]], list[int], list[int]], data: st.DataObject
) -> None:
    added, pool, own = drawn
    targets = data.draw(st.lists(st.sampled_from(LABELS), min_size=len(own), max_size=len(own)))
    sources = data.draw(st.lists(st.sampled_from(LABELS), min_size=SOURCES, max_size=SOURCES))
    found = contributions(added, pool, own).within(targets, sources)
    for t, label in enumerate(targets):
        same = [s for s in range(SOURCES) if label and sources[s] == label]
        assert found.observed[t, 0] == sum(added[t][s] for s in same)
        assert found.expected[t, 0] == pytest.approx(float(sum(_expected(added, pool, own, t, s) for s in same)))


def test_rows_at_random_have_a_lift_of_one() -> None:
    rng = np.random.default_rng(0)
    pool = np.array([4000, 1000, 3000, 2000])
    drawn = rng.multivariate_hypergeometric([0, 1000, 3000, 2000], 3000)
    found = contributions([drawn.tolist()], pool, [0])
    assert np.isnan(found.lift[0, 0])
    assert found.lift[0, 1:] == pytest.approx(np.ones(3), abs=0.1)


@pytest.mark.parametrize(
    ("added", "pool", "own", "message"),
    [
        ([[1, 2]], [3, 4, 5], [0], "expected \\(1, 3\\), targets and sources"),
        ([[1, 2]], [3, 4], [0], "a source without candidates"),
        ([[0, 1]], [3, 0], [0], "a source without candidates"),
        ([[0, -1]], [3, 4], [0], "0 or more"),
    ],
)
def test_wrong_counts_are_refused(added: list[list[int]], pool: list[int], own: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contributions(added, pool, own)


def test_every_language_needs_a_group() -> None:
    with pytest.raises(ValueError, match="1 groups for 2 languages"):
        contributions([[0, 1]], [3, 4], [0]).grouped([0], [0])
