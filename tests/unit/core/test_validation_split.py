"""Validation rows: number, shares, and weights that follow the guide set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compass_ray.core.validation_split import split_holdout, split_holdout_rows, validation_weights

labels_ = arrays(np.int64, st.integers(0, 200), elements=st.integers(-1, 6))


@given(labels_, st.floats(0.0, 0.9), st.integers(0, 9))
def test_every_cluster_is_held_out_in_its_share(labels: np.ndarray, fraction: float, seed: int) -> None:
    held = split_holdout(labels, fraction, np.random.default_rng(seed))
    n = len(labels)
    total = 0 if fraction == 0 or n < 2 else min(max(round(fraction * n), 1), n - 1)
    assert held.shape == (n,)
    assert held.sum() == total
    for k in np.unique(labels):
        assert abs(held[labels == k].sum() - (labels == k).sum() * total / n) < 1


@given(labels_.filter(len), arrays(np.float64, 8, elements=st.floats(0, 1)).filter(lambda p: p.sum() > 0.1))
def test_weighted_rows_follow_the_guide_set(labels: np.ndarray, p_eval: np.ndarray) -> None:
    weight = validation_weights(labels, p_eval)
    assert weight.mean() == pytest.approx(1.0)
    mass = np.array([weight[labels == k].sum() for k in (0, 1, 2, 3, 4, 5, 6, -1)])
    there = np.isin([0, 1, 2, 3, 4, 5, 6, -1], labels)
    if p_eval[there].sum() > 1e-6:
        assert mass / mass.sum() == pytest.approx(np.where(there, p_eval, 0) / p_eval[there].sum(), abs=1e-9)


def test_without_a_common_cluster_all_weights_are_equal() -> None:
    assert validation_weights([0, 0], [0, 1, 0]).tolist() == [1.0, 1.0]


@given(labels_, st.floats(0.0, 0.9), st.integers(0, 9))
def test_rows_that_do_not_repeat_are_split_as_ever(labels: np.ndarray, fraction: float, seed: int) -> None:
    ids = [f"r{i}" for i in np.random.default_rng(seed).permutation(len(labels))]
    plain, by_row = np.random.default_rng(seed), np.random.default_rng(seed)
    assert split_holdout_rows(ids, labels, fraction, by_row).tolist() == split_holdout(labels, fraction, plain).tolist()


@given(st.lists(st.integers(0, 20), max_size=60), st.floats(0.0, 0.9), st.integers(0, 9))
def test_all_uses_of_a_row_are_held_out_together(rows: list[int], fraction: float, seed: int) -> None:
    """The clusters of a row's uses are equal, because they are its cluster."""
    labels = np.array(rows, np.int64) % 4
    held = split_holdout_rows([str(row) for row in rows], labels, fraction, np.random.default_rng(seed))
    out = {row for row, each in zip(rows, held, strict=True) if each}
    assert not out & {row for row, each in zip(rows, held, strict=True) if not each}
    n = len(set(rows))
    assert len(out) == (0 if fraction == 0 or n < 2 else min(max(round(fraction * n), 1), n - 1))


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1\.0"):
        split_holdout([0, 1], 1.0, np.random.default_rng(0))
