"""k-means: its sweep over numbers of clusters and metrics, and the sample of the sweep."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, silhouette_score

from compass_ray.clustering import fit_clusters
from compass_ray.clustering.centroid_clusterer import assign_nearest, silhouette
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.clustering.stratified_sample import proportional_quotas, sample_stratified
from compass_ray.config import ClusterConfig
from compass_ray.models.errors import ModelError
from tests.unit.clustering.shapes import blobs

KMEANS = ClusterConfig(method="kmeans", n_clusters=(3, 6, 9), n_init=2, pca_dims=None, backend="cpu")


def test_the_paper_s_sweep_tries_23_numbers_with_ten_starts() -> None:
    config = ClusterConfig(method="kmeans")
    assert config.n_clusters == tuple(range(10, 121, 5))
    assert config.n_init == 10


def test_both_metrics_are_tried_and_the_better_one_is_fitted() -> None:
    rows, truth = blobs(400)
    stretched = rows * np.random.default_rng(0).uniform(0.2, 5, size=(400, 1)).astype(np.float32)
    found = fit_clusters(KMEANS.model_copy(update={"metric": "both"}), stretched, seed=0)
    assert [(c.parameters["metric"], c.parameters["n_clusters"]) for c in found.sweep] == [
        (metric, k) for metric in ("euclidean", "cosine") for k in (3, 6, 9)
    ]
    winner = next(cell for cell in found.sweep if cell.chosen)
    assert dict(winner.parameters) == {"n_clusters": 6, "metric": "cosine"}
    assert adjusted_rand_score(found.labels, truth) > 0.99
    np.testing.assert_array_equal(found.clusterer.assign(stretched * 3), found.labels)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_metric_scores_the_same_alone_and_with_the_other(metric: str) -> None:
    rows, _ = blobs(200, spread=1.0)
    alone = fit_clusters(KMEANS.model_copy(update={"metric": metric}), rows, seed=3).sweep
    both = fit_clusters(KMEANS.model_copy(update={"metric": "both"}), rows, seed=3).sweep
    assert [cell.score for cell in alone] == [cell.score for cell in both if cell.parameters["metric"] == metric]


def test_numbers_of_clusters_above_the_number_of_rows_are_skipped() -> None:
    rows, _ = blobs(8)
    assert [cell.n_clusters for cell in fit_clusters(KMEANS, rows, seed=0).sweep] == [3, 6]


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 10_000))
def test_nearest_equals_the_minimum_of_all_distances(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, centres = rng.normal(size=(n, 4)).astype(np.float32), rng.normal(size=(k, 4)).astype(np.float32)
    expected = np.linalg.norm(points[:, None] - centres[None], axis=2).argmin(1)
    np.testing.assert_array_equal(assign_nearest(points, centres), expected)


def test_silhouette_in_blocks_is_the_silhouette() -> None:
    rows, truth = blobs(500, spread=1.0)
    assert silhouette(rows, truth.astype(np.int32)) == pytest.approx(silhouette_score(rows, truth), abs=1e-6)
    assert silhouette(rows, np.zeros(500, np.int32)) == silhouette(rows, np.arange(500, dtype=np.int32)) == -1.0


@settings(max_examples=60)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(1, 200), st.integers(0, 99))
def test_every_stratum_has_its_share_of_a_sample(counts: list[int], at_most: int, seed: int) -> None:
    strata = [f"language {i}" for i, count in enumerate(counts) for _ in range(count)]
    rows = sample_stratified(len(strata), at_most, np.random.default_rng(seed), strata)
    assert len(rows) == min(at_most, len(strata))
    assert bool((np.diff(rows) > 0).all())
    taken = Counter(strata[row] for row in rows)
    if at_most >= len(counts):
        assert len(taken) == len(counts)
    for i, count in enumerate(counts):
        exact = count * len(rows) / len(strata)
        assert taken[f"language {i}"] <= max(np.ceil(exact), 1)
    np.testing.assert_array_equal(rows, sample_stratified(len(strata), at_most, np.random.default_rng(seed), strata))


def test_shares_are_proportional_where_all_have_more_than_one() -> None:
    assert proportional_quotas(np.array([400, 300, 200, 100]), 20).tolist() == [8, 6, 4, 2]
    assert proportional_quotas(np.array([997, 1, 1, 1]), 10).tolist() == [7, 1, 1, 1]


def test_rare_language_is_in_the_sweep() -> None:
    rows, _ = blobs(2000)
    strata = ["en"] * 1998 + ["mg"] * 2
    config = KMEANS.model_copy(update={"sweep_rows": 100})
    assert fit_clusters(config, rows, seed=0, strata=strata).sweep == fit_clusters(config, rows, seed=0, strata=strata).sweep
    taken = sample_stratified(2000, 100, np.random.default_rng(0), strata)
    assert (taken >= 1998).sum() == 1


def test_strata_of_another_length_are_rejected() -> None:
    with pytest.raises(ModelError, match="50 embedded rows but 2 row languages"):
        fit_clusters(KMEANS, blobs(50)[0], seed=0, strata=["en", "mg"])


def test_sample_with_fewer_rows_than_clusters_is_rejected() -> None:
    with pytest.raises(ModelError, match=r"cluster\.sweep_rows is 5, .* at least 11 rows"):
        fit_clusters(ClusterConfig(method="kmeans", sweep_rows=5, backend="cpu"), blobs(50)[0], seed=0)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("pca_dims", [None, 8])
def test_centres_move_to_new_rows_by_equation_two(metric: str, pca_dims: int | None) -> None:
    rows, _ = blobs(200, spread=0.5)
    found = fit_clusters(KMEANS.model_copy(update={"metric": metric, "pca_dims": pca_dims}), rows, seed=0).clusterer
    assert isinstance(found, KMeansClusterer)
    new, _ = blobs(40, spread=0.8, seed=5)
    labels = found.assign(new)
    labels[labels == 0] = -1  # a cluster without new rows, and noise
    moved = found.with_updated_centroids(new, labels, 0.25)
    compared = found.reduction(new) if pca_dims else new
    if metric == "cosine":
        compared = compared / np.linalg.norm(compared, axis=1, keepdims=True)
    for k in range(len(found.centres)):
        mine = labels == k
        centre, centroid = found.centres[k], found.centroids[k]
        if mine.any():
            centre = 0.75 * centre + 0.25 * compared[mine].mean(axis=0)
            centroid = 0.75 * centroid + 0.25 * new[mine].mean(axis=0)
        np.testing.assert_allclose(moved.centres[k], centre, atol=1e-5)
        np.testing.assert_allclose(moved.centroids[k], centroid / np.linalg.norm(centroid), atol=1e-5)
    np.testing.assert_array_equal(moved.labels, found.labels)
    distances = np.linalg.norm(compared[:, None] - moved.centres[None], axis=2)
    np.testing.assert_array_equal(moved.assign(new), distances.argmin(1))


def test_eta_zero_moves_nothing_and_eta_one_ends_at_the_new_mean() -> None:
    rows, _ = blobs(200)
    found = fit_clusters(KMEANS, rows, seed=0).clusterer
    assert isinstance(found, KMeansClusterer)
    labels = found.assign(rows[:50])
    np.testing.assert_allclose(found.with_updated_centroids(rows[:50], labels, 0.0).centres, found.centres, atol=1e-6)
    full_step = found.with_updated_centroids(rows[:50], labels, 1.0)
    for k in np.unique(labels):
        np.testing.assert_allclose(full_step.centres[k], rows[:50][labels == k].mean(axis=0), atol=1e-6)
