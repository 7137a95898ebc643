"""Incremental k-means: the paper's update, and centroids that do not move; distances to centroids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from compass_ray.core.centroids import centroid_distances, update_centroids


def test_the_update_is_equation_two() -> None:
    rng = np.random.default_rng(0)
    centroids, rows, labels = rng.normal(size=(4, 3)), rng.normal(size=(50, 3)), rng.integers(-1, 3, 50)
    moved = update_centroids(centroids, rows, labels, 0.3)
    for k in range(3):
        assert moved[k] == pytest.approx(0.7 * centroids[k] + 0.3 * rows[labels == k].mean(axis=0), abs=1e-6)
    assert moved[3] == pytest.approx(centroids[3], abs=1e-6)
    assert moved.dtype == np.float32


def test_the_extremes_of_eta() -> None:
    centroids, rows = np.zeros((1, 2)), np.ones((3, 2))
    assert not update_centroids(centroids, rows, [0, 0, 0], 0.0).any()
    assert update_centroids(centroids, rows, [0, 0, 0], 1.0).tolist() == [[1.0, 1.0]]
    assert not update_centroids(centroids, [], [], 0.5).any()


def test_errors_name_the_given_value() -> None:
    with pytest.raises(ValueError, match="eta is 2"):
        update_centroids(np.zeros((1, 2)), np.ones((1, 2)), [0], 2)
    with pytest.raises(ValueError, match="2 embeddings, 1 labels"):
        update_centroids(np.zeros((1, 2)), np.ones((2, 2)), [0], 0.5)
    with pytest.raises(ValueError, match="without NaN"):
        update_centroids(np.zeros((1, 2)), np.full((1, 2), np.nan), [0], 0.5)


@given(st.integers(0, 30), st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**31))
def test_a_distance_is_scipys_cosine_distance_to_the_own_centroid_or_the_nearest(n: int, k: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, centroids, labels = rng.normal(size=(n, d)), rng.normal(size=(k, d)), rng.integers(-1, k, n)
    every = cdist(rows, centroids, "cosine") if n else np.zeros((0, k))
    expected = np.where(labels < 0, every.min(axis=1, initial=2.0), every[np.arange(n), labels])
    found = centroid_distances(rows, centroids, labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_distance_to_an_unknown_cluster_is_refused() -> None:
    with pytest.raises(ValueError, match="the same clustering"):
        centroid_distances([[1.0, 0.0]], [[1.0, 0.0]], [1])
