"""Incremental k-means: the printed update, and what does not move."""

import numpy as np
import pytest

from compass_ray.core.centroids import update_centroids


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


def test_errors_say_what_was_given() -> None:
    with pytest.raises(ValueError, match="eta is 2"):
        update_centroids(np.zeros((1, 2)), np.ones((1, 2)), [0], 2)
    with pytest.raises(ValueError, match="2 embeddings, 1 labels"):
        update_centroids(np.zeros((1, 2)), np.ones((2, 2)), [0], 0.5)
    with pytest.raises(ValueError, match="without NaN"):
        update_centroids(np.zeros((1, 2)), np.full((1, 2), np.nan), [0], 0.5)
