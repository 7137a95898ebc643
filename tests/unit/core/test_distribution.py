"""Divergence against SciPy's distance squared, and counts with noise in its own bin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from compass_ray.core.distribution import (
    cluster_counts,
    js_divergence,
    js_divergences,
    noise_share,
    probabilities,
)

counts = st.integers(1, 40).flatmap(lambda k: st.tuples(*[arrays(np.int64, k, elements=st.integers(0, 1000)).filter(np.any)] * 2))


@given(counts)
def test_divergence_is_symmetric_bounded_and_the_square_of_the_distance(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    value = js_divergence(p, q)
    assert 0.0 <= value <= 1.0
    assert value == pytest.approx(js_divergence(q, p), abs=1e-12)
    assert value == pytest.approx(jensenshannon(p / p.sum(), q / q.sum(), base=2) ** 2, abs=1e-9)


@given(counts)
def test_counts_and_their_probabilities_have_equal_divergence(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    assert js_divergence(p, q) == pytest.approx(js_divergence(p / p.sum(), 7 * q), abs=1e-12)
    assert js_divergence(p, p) == pytest.approx(0.0, abs=1e-12)


def test_a_batch_equals_single_calls() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.integers(0, 9, (5, 7)) + 1, rng.integers(0, 9, 7) + 1
    assert js_divergences(p, q) == pytest.approx([js_divergence(row, q) for row in p])


@pytest.mark.parametrize("bad", [[0, 0], [-1, 2], [np.nan, 1], [np.inf, 1]])
def test_invalid_distributions_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="counts"):
        js_divergence(bad, [1, 1])


@pytest.mark.parametrize(("p", "q"), [([1, 1], [1, 1, 1]), ([1], []), ([[1, 1]], [[1, 1]])])
def test_different_clusters_are_refused(p: list[int], q: list[int]) -> None:
    with pytest.raises(ValueError, match="shapes"):
        js_divergence(p, q)


@given(arrays(np.int64, st.integers(0, 50), elements=st.integers(-1, 4)))
def test_counts_hold_every_row_once(labels: np.ndarray) -> None:
    found = cluster_counts(labels, 5)
    assert found.shape == (6,)
    assert found.tolist() == [int((labels == k).sum()) for k in (0, 1, 2, 3, 4, -1)]


@pytest.mark.parametrize("label", [-2, 3])
def test_a_label_of_another_clustering_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match="the same clustering"):
        cluster_counts([0, label], 3)


def test_noise_share_and_probabilities() -> None:
    assert noise_share([3, 0, 1]) == 0.25
    assert probabilities([[1, 1], [0, 4]]).tolist() == [[0.5, 0.5], [0.0, 1.0]]
