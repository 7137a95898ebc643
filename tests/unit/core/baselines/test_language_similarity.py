"""Similarity of languages against scipy's cosine distance."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from compass_ray.core.baselines.language_similarity import cosine_matrix, mean_similarity, top_k_names


def test_cosines_are_scipys() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 9))
    found = cosine_matrix(vectors)
    for i in range(6):
        for j in range(6):
            assert found[i, j] == pytest.approx(1.0 - cosine(vectors[i], vectors[j]))


def test_the_mean_is_over_the_groups_that_both_languages_have() -> None:
    rng = np.random.default_rng(1)
    groups = [rng.normal(size=(3, d)) for d in (4, 7)]
    groups[1][2] = 0.0
    found = mean_similarity(groups)
    both = [1.0 - cosine(group[0], group[1]) for group in groups]
    assert found[0, 1] == pytest.approx(np.mean(both))
    assert found[0, 2] == pytest.approx(1.0 - cosine(groups[0][0], groups[0][2]))
    assert np.isnan(mean_similarity([np.eye(2), np.diag([1.0, 0.0])])).tolist() == [[False, False], [False, False]]
    assert np.isnan(mean_similarity([np.diag([1.0, 0.0])])).tolist() == [[False, True], [True, True]]


def test_top_k_skips_unknown_languages_and_orders_ties_by_name() -> None:
    assert top_k_names([0.3, np.nan, 0.3, 0.1], ["pt", "xx", "es", "en"], 4) == ["es", "pt", "en"]


def test_vectors_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        cosine_matrix([[np.nan, 1.0]])
    with pytest.raises(ValueError, match="no feature group"):
        mean_similarity([])
