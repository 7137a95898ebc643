"""Features of a ranker, and the quality of a ranking against scikit-learn and against all orders."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from compass_ray.core.baselines.transfer_ranking import (
    FEATURES,
    Corpus,
    expected_ndcg,
    grade_gains,
    measure_pair,
    ndcg,
    ranker_features,
)

SWAHILI = Corpus(3, 8, frozenset({"mji", "mkuu", "wa", "kenya"}), frozenset({"<mji", "mkuu"}))
ENGLISH = Corpus(6, 10, frozenset({"capital", "of", "kenya", "the", "is"}), frozenset({"<the", "mkuu"}))


def test_measured_numbers_by_hand() -> None:
    assert measure_pair(SWAHILI, ENGLISH) == {
        "target_rows": 3.0,
        "transfer_rows": 6.0,
        "target_ttr": 0.5,
        "transfer_ttr": 0.5,
        "word_overlap": 1 / 9,
        "subword_overlap": 1 / 4,
    }


def test_features_add_ratios_and_distances() -> None:
    row = ranker_features([[3, 6, 0.5, 0.25, 0.1, 0.2], [0, 6, 0.0, 0.25, 0.0, 0.0]], np.arange(12.0).reshape(2, 6))
    assert row.shape == (2, len(FEATURES)) == (2, 14)
    assert row[0, 6:].tolist() == [2.0, 0.25, *range(6)]
    assert np.isnan(row[1, 6:8]).all()
    with pytest.raises(ValueError, match="expected"):
        ranker_features([[1.0, 2.0]], [[1.0] * 6])


def test_grades_fall_by_one_down_to_0() -> None:
    assert grade_gains(np.arange(13.0)).tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_quality_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        grade, scores = rng.integers(0, 11, 8), rng.normal(size=8)
        expected = ndcg_score([2.0**grade - 1], [scores], k=3)
        assert ndcg(grade, scores, 3) == pytest.approx(expected)


def test_expected_quality_is_the_mean_over_all_orders() -> None:
    grade = np.array([10, 7, 7, 3, 0])
    every = [ndcg(grade, order, 3) for order in permutations(range(5))]
    assert expected_ndcg(grade, 3) == pytest.approx(np.mean(every))
