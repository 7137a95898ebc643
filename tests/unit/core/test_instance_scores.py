"""Instance scores against the formulas, row by row."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from compass_ray.core.instance_scores import (
    BLOCK_ROWS,
    Boundary,
    boundary_scores,
    cluster_boundary_scores,
    instance_scores,
    pool_scores,
)


def directions(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_scores_are_the_formulas() -> None:
    rows, centroid, others = directions(20), directions(1, seed=1)[0], directions(4, seed=2)
    scores = instance_scores(rows, centroid, others)
    proto = [1 / (1 + cosine(row, centroid)) for row in rows]
    margin = [min(cosine(row, other) for other in others) - cosine(row, centroid) for row in rows]
    assert scores.proto == pytest.approx(proto, abs=1e-6)
    assert scores.margin_raw == pytest.approx(margin, abs=1e-6)


def test_only_directions_matter() -> None:
    rows, centroid, others = directions(9), directions(1, seed=1)[0], directions(3, seed=2)
    plain, scaled = instance_scores(rows, centroid, others), instance_scores(3 * rows, 9 * centroid, others / 7)
    assert scaled.proto == pytest.approx(plain.proto, abs=1e-6)
    assert scaled.margin_raw == pytest.approx(plain.margin_raw, abs=1e-6)


def test_the_boundary_score_is_highest_at_the_smallest_margin() -> None:
    margin = np.array([0.2, -0.4, 0.6])
    assert boundary_scores(margin).tolist() == pytest.approx([0.4, 1.0, 0.0])
    assert boundary_scores(margin, form=Boundary.AS_PRINTED).tolist() == pytest.approx([0.6, 0.0, 1.0])
    assert boundary_scores([]).shape == (0,)


def test_the_boundary_of_a_single_cluster_is_its_farthest_rows() -> None:
    rows = directions(30)
    scores = instance_scores(rows, rows.mean(axis=0), np.empty((0, 6)))
    edge = boundary_scores(scores.margin_raw)
    assert np.argmax(edge) == np.argmin(scores.proto)
    assert edge.min() == 0.0
    assert edge.max() == 1.0


def test_equal_rows_have_exactly_equal_scores_at_any_index() -> None:
    rows = np.repeat(directions(1, 33), 301, axis=0)
    scores = instance_scores(rows, directions(1, 33, seed=1)[0], directions(5, 33, seed=2))
    assert len(np.unique(scores.proto)) == 1
    assert len(np.unique(boundary_scores(scores.margin_raw))) == 1


def test_a_pool_in_blocks_equals_cluster_by_cluster() -> None:
    n = BLOCK_ROWS + 7
    rows, centroids = directions(n), directions(3, seed=1)
    labels = np.random.default_rng(2).integers(-1, 3, n)
    scores = pool_scores(rows, labels, centroids)
    for k in range(3):
        own = instance_scores(rows[labels == k], centroids[k], np.delete(centroids, k, axis=0))
        assert scores.proto[labels == k] == pytest.approx(own.proto)
        assert scores.margin_raw[labels == k] == pytest.approx(own.margin_raw)
    assert not scores.proto[labels == -1].any()


def test_half_precision_rows_are_accepted() -> None:
    rows = directions(8)
    half = instance_scores(rows.astype(np.float16), rows[0], rows[1:2])
    assert half.proto == pytest.approx(instance_scores(rows, rows[0], rows[1:2]).proto, abs=2e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_rows_without_a_direction_are_refused(bad: float) -> None:
    rows = directions(3)
    rows[1] = bad
    with pytest.raises(ValueError, match="first row 1"):
        instance_scores(rows, rows[0], rows[2:])


def test_another_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="one encoder"):
        instance_scores(directions(3, 4), directions(1, 5)[0], directions(2, 5))


@pytest.mark.parametrize("form", list(Boundary))
def test_boundary_scores_of_all_clusters_equal_those_of_each_cluster(form: Boundary) -> None:
    rng = np.random.default_rng(0)
    labels, margin = rng.integers(-1, 7, 300), rng.normal(size=300)
    margin[labels == 3] = 0.5
    labels[labels == 5] = 4
    found = cluster_boundary_scores(margin, labels, 7, form=form)
    for k in range(7):
        assert found[labels == k].tolist() == boundary_scores(margin[labels == k], form=form).tolist()
    assert not found[labels < 0].any()
    assert cluster_boundary_scores([], [], 0).shape == (0,)
