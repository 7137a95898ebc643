"""Ward's tree against scipy's, with rows that weigh one and with rows that weigh more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, linkage
from sklearn.metrics import adjusted_rand_score

from compass_ray.clustering import fit_clusters
from compass_ray.clustering.centroid_clusterer import silhouette
from compass_ray.clustering.ward import grow_tree
from compass_ray.clustering.ward_tree import ward_tree
from compass_ray.config import ClusterConfig
from tests.unit.clustering.shapes import blobs

WARD = ClusterConfig(method="ward", n_clusters=(3, 6, 9), pca_dims=8, backend="cpu")


@settings(max_examples=40)
@given(st.integers(2, 80), st.integers(1, 5), st.integers(0, 10_000))
def test_tree_of_rows_is_scipys(n: int, d: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(n, d))
    ours, theirs = ward_tree(points, np.ones(n)), linkage(points, "ward")
    assert is_valid_linkage(ours)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=30), st.integers(0, 10_000))
def test_a_point_of_several_rows_is_as_many_copies_of_it(sizes: list[int], seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(len(sizes), 3))
    ours, theirs = ward_tree(points, sizes), linkage(np.repeat(points, sizes, axis=0), "ward")
    np.testing.assert_allclose(ours[:, 2], theirs[1 - len(sizes) :, 2], rtol=1e-8)
    for k in range(2, len(sizes)):
        expected = fcluster(theirs, k, "maxclust")
        found = np.repeat(fcluster(ours, k, "maxclust"), sizes)
        assert adjusted_rand_score(found, expected) == pytest.approx(1)


def test_copies_and_equal_distances_still_make_a_tree() -> None:
    points = np.repeat(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 5, axis=0)
    tree = ward_tree(points, np.ones(20))
    assert is_valid_linkage(tree)
    np.testing.assert_allclose(np.sort(tree[:, 2]), np.sort(linkage(points, "ward")[:, 2]))
    assert adjusted_rand_score(fcluster(tree, 4, "maxclust"), np.repeat(np.arange(4), 5)) == 1


def test_one_point_has_no_merges() -> None:
    assert ward_tree([[1.0, 2.0]], [3]).shape == (0, 4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_small_pool_has_scipys_cut_of_the_best_silhouette(metric: str) -> None:
    rows, _ = blobs(300, spread=1.2, d=6)
    config = WARD.model_copy(update={"metric": metric, "pca_dims": None, "n_clusters": tuple(range(2, 12))})
    found = fit_clusters(config, rows * np.linspace(0.5, 2, 300, dtype=np.float32)[:, None], seed=0)
    points = rows if metric == "cosine" else rows * np.linspace(0.5, 2, 300, dtype=np.float32)[:, None]
    tree = linkage(points.astype(np.float64), "ward")
    cuts = [fcluster(tree, k, "maxclust") for k in config.n_clusters]
    scores = [silhouette(points, cut) for cut in cuts]
    assert adjusted_rand_score(found.labels, cuts[int(np.argmax(scores))]) == 1
    assert [cell.score for cell in found.sweep] == pytest.approx(scores, abs=1e-5)
    assert {cell.parameters["metric"] for cell in found.sweep} == {metric}


def test_both_metrics_are_in_the_sweep_and_one_cell_wins() -> None:
    rows, truth = blobs(300)
    stretched = rows * np.random.default_rng(0).uniform(0.2, 5, size=(300, 1)).astype(np.float32)
    found = fit_clusters(WARD.model_copy(update={"metric": "both", "pca_dims": None}), stretched, seed=0)
    assert [cell.parameters["metric"] for cell in found.sweep] == ["euclidean"] * 3 + ["cosine"] * 3
    assert [cell.parameters["metric"] for cell in found.sweep if cell.chosen] == ["cosine"]
    assert adjusted_rand_score(found.labels, truth) > 0.99


def test_larger_pool_uses_micro_clusters_weighted_by_their_rows() -> None:
    rows, truth = blobs(1500, spread=0.5)
    config = WARD.model_copy(update={"micro_clusters": 60})
    found = fit_clusters(config, rows, seed=0)
    assert adjusted_rand_score(found.labels, truth) > 0.99
    assert {cell.details["leaves"] for cell in found.sweep} == {60}
    tree = grow_tree(rows, "euclidean", 60, seed=0)
    assert len(tree.merges) == tree.micro.max() == 59
    assert np.bincount(tree.micro).min() >= 1


def test_new_rows_join_the_nearest_mean_of_a_cluster() -> None:
    rows, _ = blobs(400, spread=1.5, d=5)
    found = fit_clusters(WARD.model_copy(update={"metric": "euclidean", "pca_dims": None}), rows, seed=0)
    new, _ = blobs(100, spread=1.5, d=5, seed=1)
    means = np.stack([rows[found.labels == k].mean(0) for k in range(len(found.coarse))])
    expected = np.linalg.norm(new[:, None] - means[None], axis=2).argmin(1)
    np.testing.assert_array_equal(found.clusterer.assign(new), expected)
