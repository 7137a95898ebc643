"""Strategies: what each looks back at, and that all are cases of one loss."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import UpdateConfig
from compass_ray.continual.strategies import MOST_FISHER_ROWS, STRATEGIES, LookedBack, look_back

ROWS = [f"row-{i:02d}" for i in range(40)]
ANCHORS = ["row-07", "row-03"]


def _look_back(name: str, rows: list[str], seed: int = 0) -> LookedBack:
    return look_back(STRATEGIES[name], ANCHORS, rows, np.random.default_rng(seed))


def test_every_strategy_that_can_be_set_is_in_the_table() -> None:
    assert set(STRATEGIES) == set(get_args(UpdateConfig.model_fields["strategy"].annotation))


@pytest.mark.parametrize("name", ["static", "naive", "full"])
def test_some_look_back_at_nothing(name: str) -> None:
    assert _look_back(name, ROWS) == LookedBack((), ())


def test_ecda_rehearses_the_anchors_and_is_tied_by_them() -> None:
    assert _look_back("ecda", ROWS) == LookedBack(tuple(ANCHORS), tuple(ANCHORS))


def test_ewc_is_tied_by_all_that_was_trained_on_and_rehearses_nothing() -> None:
    assert _look_back("ewc", [*ROWS, *ROWS]) == LookedBack((), tuple(ROWS))


@given(st.integers(0, 2**32), st.lists(st.integers(0, 30), min_size=1))
def test_random_rehearsal_draws_as_many_rows_as_there_are_anchors(seed: int, numbers: list[int]) -> None:
    rows = [f"row-{i:02d}" for i in numbers]
    found = _look_back("random_rehearsal", rows, seed)
    assert found == _look_back("random_rehearsal", rows, seed)
    assert found.fisher == ()
    assert len(set(found.rehearsed)) == len(found.rehearsed) == min(len(ANCHORS), len(set(rows)))
    assert set(found.rehearsed) <= set(rows)


def test_random_rehearsal_draws_every_row_alike() -> None:
    drawn = [row for seed in range(2_000) for row in _look_back("random_rehearsal", ROWS[:4], seed).rehearsed]
    shares = [drawn.count(row) / 2_000 for row in ROWS[:4]]
    assert shares == pytest.approx([0.5] * 4, abs=0.06)  # five standard errors


def test_of_very_many_rows_a_sample_informs_ewc() -> None:
    many = [f"row-{i}" for i in range(MOST_FISHER_ROWS + 1)]
    found = _look_back("ewc", many).fisher
    assert len(set(found)) == MOST_FISHER_ROWS
    assert sorted(found, key=many.index) == list(found)
    assert found != _look_back("ewc", many, seed=1).fisher
