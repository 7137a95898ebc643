"""Importance weights by hand, and draws with the distribution of successive draws."""

from itertools import permutations
from math import log

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import chisquare

from compass_ray.core.baselines.importance_resampling import ImportanceResamplingPicker, importance_log_weights


def test_weights_are_those_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    rows, guide = rng.integers(0, 4, (7, 5)), rng.integers(0, 3, (3, 5))
    for row, found in zip(rows, importance_log_weights(rows, guide, smoothing=0.5), strict=True):
        expected = 0.0
        for bucket, count in enumerate(row):
            p = (sum(int(each[bucket]) for each in guide) + 0.5) / (int(guide.sum()) + 2.5)
            q = (sum(int(each[bucket]) for each in rows) + 0.5) / (int(rows.sum()) + 2.5)
            expected += int(count) * (log(p) - log(q))
        assert found == pytest.approx(expected)


def test_sparse_counts_give_the_same_weights() -> None:
    rng = np.random.default_rng(1)
    rows, guide = rng.integers(0, 2, (20, 30)), rng.integers(0, 2, (4, 30))
    assert importance_log_weights(sparse.csr_matrix(rows), sparse.csr_matrix(guide)) == pytest.approx(
        importance_log_weights(rows, guide)
    )


def test_a_row_similar_to_the_guide_set_has_a_larger_weight() -> None:
    rows = np.array([[3, 0, 1], [0, 3, 1], [0, 0, 1]])
    like, unlike, neither = importance_log_weights(rows, np.array([[9, 0, 1]]))
    assert like > neither > unlike


@pytest.mark.parametrize(
    ("rows", "guide", "smoothing"),
    [(np.ones((2, 3)), np.ones((2, 4)), 1.0), (np.ones((2, 3)), np.ones((0, 3)), 1.0), (np.ones((2, 3)), np.ones((1, 3)), 0.0)],
)
def test_invalid_counts_are_refused(rows: np.ndarray, guide: np.ndarray, smoothing: float) -> None:
    with pytest.raises(ValueError, match="counts of the same buckets"):
        importance_log_weights(rows, guide, smoothing=smoothing)


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_draws_have_the_distribution_of_successive_draws(taken: int) -> None:
    weight = np.array([1.0, 2.0, 3.0, 0.5])
    law = {}
    for order in permutations(range(4), taken):
        left, chance = weight.sum(), 1.0
        for row in order:
            chance *= weight[row] / left
            left -= weight[row]
        law[order] = chance
    picker, rng, runs = ImportanceResamplingPicker(np.log(weight)), np.random.default_rng(2), 20_000
    seen = dict.fromkeys(law, 0)
    for _ in range(runs):
        seen[tuple(picker(taken, rng).position.tolist())] += 1
    assert chisquare(list(seen.values()), [runs * chance for chance in law.values()]).pvalue > 1e-3


def test_scores_are_the_weights_and_equal_seeds_give_equal_draws() -> None:
    weight = np.random.default_rng(0).normal(size=50)
    first, second = (ImportanceResamplingPicker(weight)(10, np.random.default_rng(5)) for _ in range(2))
    assert first.position.tolist() == second.position.tolist()
    assert first.score.tolist() == weight[first.position].tolist()
    assert len(ImportanceResamplingPicker(weight)(80, np.random.default_rng(5)).position) == 50
