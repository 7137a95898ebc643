"""Clusterers against the `hdbscan` and scikit-learn packages, on blobs, and at the edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from compass_ray.config import ClusterConfig
from compass_ray.models.clusterers import fit_clusters, load_clusterer
from compass_ray.models.clusterers.backends import choose_backend
from compass_ray.models.clusterers.centroids import coarse_cut
from compass_ray.models.clusterers.condensed import condense
from compass_ray.models.clusterers.density import Placement
from compass_ray.models.clusterers.spanning_tree import neighbour_distances, spanning_tree
from compass_ray.models.clusterers.storage import ARRAYS, MARK
from compass_ray.models.clusterers.validity import relative_validity, score
from compass_ray.models.errors import ModelError

Rows = npt.NDArray[np.float32]
DENSITY = ClusterConfig(min_cluster_size=(5, 10), min_samples=(3, 5), reduce=8, backend="cpu")
CENTRES = ClusterConfig(method="kmeans", n_clusters=(3, 6, 9), n_init=2, reduce=8, backend="cpu")


def blobs(n: int, k: int = 6, d: int = 24, *, spread: float = 0.1, seed: int = 0) -> tuple[Rows, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    centres = np.random.default_rng(99).normal(size=(k, d))
    rows = centres[truth] / np.linalg.norm(centres[truth], axis=1, keepdims=True) + spread * rng.normal(size=(n, d)) / d**0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


def reference(points: Rows, size: int, samples: int) -> Any:
    import hdbscan

    return hdbscan.HDBSCAN(
        min_cluster_size=size, min_samples=samples, algorithm="prims_kdtree", gen_min_span_tree=True, prediction_data=True
    ).fit(points.astype(np.float64))


@pytest.mark.parametrize("spread", [0.2, 0.8])
@pytest.mark.parametrize(("size", "samples"), [(5, 1), (5, 5), (12, 3)])
def test_clusters_of_a_tree_equal_those_of_hdbscan(spread: float, size: int, samples: int) -> None:
    points, _ = blobs(700, spread=spread, d=6)
    oracle = reference(points, size, samples)
    edges = oracle._min_spanning_tree
    tree = condense(edges, size)
    assert adjusted_rand_score(tree.labels, oracle.labels_) == 1
    np.testing.assert_array_equal(tree.labels < 0, oracle.labels_ < 0)
    np.testing.assert_allclose(tree.strength(tree.labels, tree.density), oracle.probabilities_, atol=1e-6)
    assert relative_validity(edges, tree.labels) == pytest.approx(oracle.relative_validity_)


@pytest.mark.parametrize("samples", [1, 3, 5])
def test_our_tree_gives_nearly_the_same_clusters(samples: int) -> None:
    # Not wholly: several edges of a tree of mutual reachability are equally long, and any of them may be taken.
    points, _ = blobs(700, spread=0.8, d=6)
    ours = condense(spanning_tree(points, neighbour_distances(points, samples)[:, -1]), 10)
    assert adjusted_rand_score(ours.labels, reference(points, 10, samples).labels_) > 0.97


@pytest.mark.parametrize("samples", [1, 4])
def test_new_points_are_placed_as_hdbscan_predicts_them(samples: int) -> None:
    import hdbscan

    points, _ = blobs(600, spread=0.6, d=6)
    new, _ = blobs(400, spread=0.7, d=6, seed=5)
    oracle = reference(points, 10, samples)
    expected, strength = hdbscan.approximate_predict(oracle, new.astype(np.float64))
    tree = condense(oracle._min_spanning_tree, 10)
    placement = Placement(points, oracle.prediction_data_.core_distances, samples, tree)
    labels, found = placement.place(new)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(found, strength, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 60), st.integers(1, 4), st.integers(1, 5), st.integers(0, 10_000))
def test_spanning_tree_weighs_what_scipy_finds(n: int, d: int, samples: int, seed: int) -> None:
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    points = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    core = neighbour_distances(points, min(samples, n - 1))[:, -1]
    reach = np.maximum(cdist(points.astype(float), points.astype(float)), np.maximum(core[:, None], core[None]))
    edges = spanning_tree(points, core)
    assert edges[:, 2].sum() == pytest.approx(minimum_spanning_tree(reach).sum(), rel=1e-4)
    assert bool((np.diff(edges[:, 2]) >= 0).all())


@pytest.mark.parametrize("config", [DENSITY, CENTRES], ids=["hdbscan", "kmeans"])
def test_blobs_are_found(config: ClusterConfig) -> None:
    rows, truth = blobs(900)
    found = fit_clusters(config, rows, seed=0)
    assert adjusted_rand_score(found.labels, truth) > 0.99
    assert found.labels.dtype == np.int32
    assert found.backend == "cpu"
    assert sum(cell.chosen for cell in found.sweep) == 1
    chosen = next(cell for cell in found.sweep if cell.chosen)
    assert chosen.score == max(cell.score for cell in found.sweep)
    assert chosen.n_clusters == len(found.coarse) == len(found.clusterer.centroids) == 6
    np.testing.assert_allclose(np.linalg.norm(found.clusterer.centroids, axis=1), 1, atol=1e-5)
    assert bool(((found.strength >= 0) & (found.strength <= 1)).all())


@pytest.mark.parametrize("config", [DENSITY, CENTRES], ids=["hdbscan", "kmeans"])
def test_new_points_join_their_blob_also_after_the_disk(config: ClusterConfig, tmp_path: Path) -> None:
    rows, truth = blobs(600)
    new, new_truth = blobs(300, seed=3)
    found = fit_clusters(config, rows, seed=0)
    found.clusterer.save(tmp_path)
    loaded = load_clusterer(tmp_path)
    assigned = loaded.assign(new)
    name = {int(truth[i]): int(found.labels[i]) for i in range(len(rows)) if found.labels[i] >= 0}
    inside = assigned >= 0
    assert inside.mean() > 0.9
    assert [name[t] for t in new_truth[inside].tolist()] == assigned[inside].tolist()
    np.testing.assert_array_equal(assigned, found.clusterer.assign(new))
    np.testing.assert_array_equal(loaded.labels, found.labels)
    np.testing.assert_array_equal(loaded.centroids, found.clusterer.centroids)
    assert loaded.assign(new[:0]).shape == (0,)


@pytest.mark.parametrize("config", [DENSITY, CENTRES], ids=["hdbscan", "kmeans"])
def test_equal_seed_gives_equal_clusters(config: ClusterConfig) -> None:
    rows, _ = blobs(500, spread=0.5)
    bounded = config.model_copy(update={"sweep_rows": 200, "tree_rows": 400})
    first, second = fit_clusters(bounded, rows, seed=4), fit_clusters(bounded, rows, seed=4)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.sweep == second.sweep


def test_rows_beyond_the_tree_are_placed() -> None:
    rows, truth = blobs(900)
    found = fit_clusters(DENSITY.model_copy(update={"tree_rows": 400, "sweep_rows": 250}), rows, seed=1)
    assert len(found.labels) == 900
    assert adjusted_rand_score(found.labels[found.labels >= 0], truth[found.labels >= 0]) > 0.99
    assert np.mean(found.labels < 0) < 0.1


def test_kmeans_labels_are_what_assign_says() -> None:
    rows, _ = blobs(500, spread=1.5)
    for metric in ("cosine", "euclidean"):
        found = fit_clusters(CENTRES.model_copy(update={"metric": metric}), rows, seed=0)
        np.testing.assert_array_equal(found.clusterer.assign(rows), found.labels)


def test_full_dimensions_when_reduction_is_off() -> None:
    rows, truth = blobs(400)
    found = fit_clusters(DENSITY.model_copy(update={"reduce": None}), rows, seed=0)
    assert adjusted_rand_score(found.labels, truth) > 0.95


def test_copies_of_a_row_do_not_break_the_tree() -> None:
    rows, truth = blobs(200)
    found = fit_clusters(DENSITY, np.repeat(rows, 4, axis=0), seed=0)
    assert bool(np.isfinite(found.clusterer.centroids).all())
    inside = found.labels >= 0
    assert inside.any()
    assert bool(np.isfinite(found.strength).all())
    assert adjusted_rand_score(found.labels[inside], np.repeat(truth, 4)[inside]) > 0.3


def test_all_noise_scores_worst_and_noise_never_helps() -> None:
    points, _ = blobs(60, d=4)
    edges = spanning_tree(points, neighbour_distances(points, 3)[:, -1])
    none = np.full(60, -1, np.int32)
    poor = np.random.default_rng(0).integers(0, 2, 60).astype(np.int32)
    poorer = np.where(np.arange(60) < 10, -1, poor).astype(np.int32)
    assert score(edges, none) == -2.0 < score(edges, poorer)
    assert relative_validity(edges, poor) < 0


@pytest.mark.parametrize("at_most", [1, 3, 10, 50])
def test_coarse_cut_is_bounded_and_numbered_without_gaps(at_most: int) -> None:
    centroids, _ = blobs(40)
    coarse = coarse_cut(centroids, at_most)
    assert len(coarse) == 40
    assert sorted(set(coarse.tolist())) == list(range(min(at_most, 40)))


def _broken(rows: Rows) -> Rows:
    changed = rows.copy()
    changed[17, 2] = np.nan
    return changed


@pytest.mark.parametrize("config", [DENSITY, CENTRES], ids=["hdbscan", "kmeans"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_broken(blobs(100)[0]), "NaN.*row 17"),
        (np.tile(blobs(1)[0], (100, 1)), "identical"),
        (blobs(1)[0], "there are 1 embedded rows"),
        (np.zeros((0, 24), np.float32), "there are 0 embedded rows"),
        (np.zeros(24, np.float32), "shape"),
    ],
    ids=["nan", "identical", "one", "none", "flat"],
)
def test_embeddings_that_cannot_be_clustered(config: ClusterConfig, rows: Rows, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fit_clusters(config, rows, seed=0)


def test_nothing_but_noise_names_the_remedy() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 24)).astype(np.float32)
    config = DENSITY.model_copy(update={"min_cluster_size": (25,), "reduce": None})
    with pytest.raises(ModelError, match=r"cluster\.method=kmeans"):
        fit_clusters(config, rows, seed=0)


def test_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"cluster\.backend=cpu"):
        choose_backend("gpu")


@pytest.mark.parametrize("damage", ["mark", "format", "kind", "arrays", "missing"])
def test_folder_that_no_clusterer_wrote_is_refused(tmp_path: Path, damage: str) -> None:
    fit_clusters(CENTRES, blobs(100)[0], seed=0).clusterer.save(tmp_path)
    mark = json.loads((tmp_path / MARK).read_text())
    if damage == "mark":
        (tmp_path / MARK).write_text("{")
    elif damage == "arrays":
        (tmp_path / ARRAYS).write_bytes((tmp_path / ARRAYS).read_bytes()[:200])
    elif damage == "missing":
        (tmp_path / MARK).unlink()
    else:
        (tmp_path / MARK).write_text(json.dumps(mark | {damage: "other"}))
    with pytest.raises(ModelError):
        load_clusterer(tmp_path)
