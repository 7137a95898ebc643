"""Clusterers against the `hdbscan` and scikit-learn packages, on blobs, and at the edges."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from compass_ray.clustering import Clusterer, fit_clusters, load_clusterer
from compass_ray.clustering.backends import choose_backend
from compass_ray.clustering.centroids import coarse_cut
from compass_ray.clustering.condensed_tree import condense
from compass_ray.clustering.hdbscan import ApproximatePredictor
from compass_ray.clustering.relative_validity import relative_validity, screening_score
from compass_ray.clustering.serialization import ARRAYS_FILE, HEADER_FILE
from compass_ray.clustering.spanning_tree import neighbour_distances, spanning_tree
from compass_ray.config import ClusterConfig
from compass_ray.models.errors import ModelError
from tests.unit.clustering.shapes import Rows, blobs, moons

DENSITY = ClusterConfig(min_cluster_size=(5, 10), min_samples=(3, 5), pca_dims=8, backend="cpu")
CENTRES = ClusterConfig(method="kmeans", n_clusters=(3, 6, 9), n_init=2, pca_dims=8, backend="cpu")


WARD = ClusterConfig(method="ward", n_clusters=(3, 6, 9), pca_dims=8, backend="cpu")
BUTINA = ClusterConfig(method="butina", pca_dims=8, backend="cpu")
ALL = pytest.mark.parametrize("config", [DENSITY, CENTRES, WARD, BUTINA], ids=lambda config: config.method)


def reference(points: Rows, size: int, samples: int) -> Any:
    import hdbscan

    return hdbscan.HDBSCAN(
        min_cluster_size=size, min_samples=samples, algorithm="prims_kdtree", gen_min_span_tree=True, prediction_data=True
    ).fit(points.astype(np.float64))


@pytest.fixture(scope="module")
def fitted() -> dict[str, Clusterer]:
    """One clusterer of each method."""
    rows, _ = blobs(150)
    return {config.method: fit_clusters(config, rows, seed=0).clusterer for config in (DENSITY, CENTRES, WARD, BUTINA)}


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
    # Not equal: several edges of mutual reachability have equal length, and a tree may use any of them.
    points, _ = blobs(700, spread=0.8, d=6)
    ours = condense(spanning_tree(points, neighbour_distances(points, samples)[:, -1]), 10)
    assert adjusted_rand_score(ours.labels, reference(points, 10, samples).labels_) > 0.97


@pytest.mark.parametrize("samples", [1, 4])
def test_new_points_are_assigned_as_hdbscan_predicts_them(samples: int) -> None:
    import hdbscan

    points, _ = blobs(600, spread=0.6, d=6)
    new, _ = blobs(400, spread=0.7, d=6, seed=5)
    oracle = reference(points, 10, samples)
    expected, strength = hdbscan.approximate_predict(oracle, new.astype(np.float64))
    tree = condense(oracle._min_spanning_tree, 10)
    placement = ApproximatePredictor(points, oracle.prediction_data_.core_distances, samples, tree)
    labels, found = placement.predict(new)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(found, strength, atol=1e-5)


@settings(max_examples=25)
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


@ALL
def test_blobs_are_found(config: ClusterConfig) -> None:
    rows, truth = blobs(900)
    found = fit_clusters(config, rows, seed=0)
    assert adjusted_rand_score(found.labels, truth) > 0.99
    assert found.labels.dtype == np.int32
    assert found.backend == "cpu"
    assert sum(cell.chosen for cell in found.sweep) == 1
    chosen = next(cell for cell in found.sweep if cell.chosen)
    assert chosen.score == max(cell.score for cell in found.sweep)
    assert chosen.n_clusters == len(found.coarse) == len(found.clusterer.centroids)
    assert chosen.n_clusters == 6
    np.testing.assert_allclose(np.linalg.norm(found.clusterer.centroids, axis=1), 1, atol=1e-5)
    assert bool(((found.strength >= 0) & (found.strength <= 1)).all())
    np.testing.assert_array_equal(found.strength > 0, found.labels >= 0)


def test_density_alone_follows_moons_through_noise() -> None:
    rows, truth = moons(600, noise=60)
    shared = {"pca_dims": None, "metric": "euclidean", "n_clusters": (2, 3, 4, 6, 8)}
    real = truth >= 0
    found = {
        config.method: adjusted_rand_score(truth[real], fit_clusters(config.model_copy(update=shared), rows, seed=0).labels[real])
        for config in (DENSITY, CENTRES, WARD, BUTINA)
    }
    assert found["hdbscan"] > 0.9
    assert all(0 < score < found["hdbscan"] - 0.2 for method, score in found.items() if method != "hdbscan")


@ALL
def test_new_points_join_their_blob_after_save_and_load_too(config: ClusterConfig, tmp_path: Path) -> None:
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


@ALL
def test_equal_seed_gives_equal_clusters(config: ClusterConfig) -> None:
    rows, _ = blobs(500, spread=0.5)
    bounded = config.model_copy(update={"sweep_rows": 200, "tree_rows": 400})
    first, second = fit_clusters(bounded, rows, seed=4), fit_clusters(bounded, rows, seed=4)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.sweep == second.sweep


def test_rows_outside_the_tree_are_assigned() -> None:
    rows, truth = blobs(900)
    found = fit_clusters(DENSITY.model_copy(update={"tree_rows": 400, "sweep_rows": 250}), rows, seed=1)
    assert len(found.labels) == 900
    assert adjusted_rand_score(found.labels[found.labels >= 0], truth[found.labels >= 0]) > 0.99
    assert np.mean(found.labels < 0) < 0.1


def test_kmeans_labels_equal_assign() -> None:
    rows, _ = blobs(500, spread=1.5)
    for metric in ("cosine", "euclidean"):
        found = fit_clusters(CENTRES.model_copy(update={"metric": metric}), rows, seed=0)
        np.testing.assert_array_equal(found.clusterer.assign(rows), found.labels)


def test_full_dimensions_when_reduction_is_off() -> None:
    rows, truth = blobs(400)
    found = fit_clusters(DENSITY.model_copy(update={"pca_dims": None}), rows, seed=0)
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
    assert screening_score(edges, none) == -2.0 < screening_score(edges, poorer)
    assert relative_validity(edges, poor) < 0


@pytest.mark.parametrize("at_most", [1, 3, 10, 50])
def test_coarse_cut_is_bounded_and_numbered_without_gaps(at_most: int) -> None:
    centroids, _ = blobs(40)
    coarse = coarse_cut(centroids, at_most)
    assert len(coarse) == 40
    assert sorted(set(coarse.tolist())) == list(range(min(at_most, 40)))


def test_coarse_cut_of_many_centroids_merges_similar_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compass_ray.clustering.centroids._EXACT", 100)
    centroids, truth = blobs(300, d=80, spread=0.3)
    assert adjusted_rand_score(coarse_cut(centroids, 6), truth) > 0.99


def _broken(rows: Rows) -> Rows:
    changed = rows.copy()
    changed[17, 2] = np.nan
    return changed


def _empty(rows: Rows) -> Rows:
    changed = rows.copy()
    changed[3] = 0
    return changed


@ALL
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_empty(blobs(100)[0]), "all zeros.*row 3"),
        (_broken(blobs(100)[0]), "NaN.*row 17"),
        (np.tile(blobs(1)[0], (100, 1)), "identical"),
        (blobs(1)[0], "there are 1 embedded rows"),
        (blobs(2)[0], "there are 2 embedded rows|all are noise"),
        (np.zeros((0, 24), np.float32), "there are 0 embedded rows"),
        (np.zeros(24, np.float32), "shape"),
    ],
    ids=["zeros", "nan", "identical", "one", "two", "none", "flat"],
)
def test_embeddings_that_cannot_be_clustered(config: ClusterConfig, rows: Rows, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fit_clusters(config, rows, seed=0)


def test_error_for_noise_only_says_what_to_do() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 24)).astype(np.float32)
    config = DENSITY.model_copy(update={"min_cluster_size": (25,), "pca_dims": None})
    with pytest.raises(ModelError, match=r"cluster\.method=kmeans"):
        fit_clusters(config, rows, seed=0)


def test_missing_gpu_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"cluster\.backend=cpu"):
        choose_backend("gpu")


@pytest.mark.parametrize("setting", ["auto", "cpu"])
def test_unused_gpu_without_cuml_logs_a_warning(
    setting: Literal["auto", "cpu"], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level("INFO", "compass_ray"):
        assert choose_backend(setting).name == "cpu"
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (setting == "auto")
    assert all("compass-ray[gpu]" in message and "cluster.backend=cpu" in message for message in warned)
    assert caplog.messages[-1] == f"cluster: backend={setting}, clustering on the CPU"


def test_no_gpu_needs_no_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with caplog.at_level("INFO", "compass_ray"):
        assert choose_backend("auto").name == "cpu"
    assert [record.levelname for record in caplog.records] == ["INFO"]


ODD: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "unhashable": lambda mark: {"kind": ["x"]},
    "null settings": lambda mark: {"settings": None},
    "settings of another type": lambda mark: {"settings": dict.fromkeys(mark["settings"], "x")},
    "names": lambda mark: {"arrays": None},
}


@ALL
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("mark", "damaged"),
        ("format", "not written by compass_ray"),
        ("version", "has format version 'other'.*compass_ray version that wrote it"),
        ("kind", "of unknown kind 'other'"),
        ("settings", "damaged: it lacks"),
        ("arrays", "damaged"),
        ("missing", "has no clusterer"),
        ("unhashable", r"of unknown kind \['x'\]"),
        ("directory", "damaged"),
        ("null settings", "damaged: it lacks"),
        ("settings of another type", "damaged: it lacks a usable"),
        ("names", "damaged"),
    ],
)
def test_folder_that_no_clusterer_wrote_is_rejected(
    config: ClusterConfig, tmp_path: Path, damage: str, said: str, fitted: dict[str, Clusterer]
) -> None:
    fitted[config.method].save(tmp_path)
    mark = json.loads((tmp_path / HEADER_FILE).read_text())
    if damage == "mark":
        (tmp_path / HEADER_FILE).write_text("{")
    elif damage == "arrays":
        (tmp_path / ARRAYS_FILE).write_bytes((tmp_path / ARRAYS_FILE).read_bytes()[:200])
    elif damage == "missing":
        (tmp_path / HEADER_FILE).unlink()
    elif damage == "settings":
        (tmp_path / HEADER_FILE).write_text(json.dumps(mark | {"settings": {}}))
    elif damage == "directory":
        (tmp_path / HEADER_FILE).unlink()
        (tmp_path / HEADER_FILE).mkdir()
    elif damage in ODD:
        (tmp_path / HEADER_FILE).write_text(json.dumps(mark | ODD[damage](mark)))
    else:
        (tmp_path / HEADER_FILE).write_text(json.dumps(mark | {damage: "other"}))
    with pytest.raises(ModelError, match=said):
        load_clusterer(tmp_path)


@ALL
def test_arrays_that_do_not_match_the_header_are_rejected(
    config: ClusterConfig, tmp_path: Path, fitted: dict[str, Clusterer]
) -> None:
    fitted[config.method].save(tmp_path)
    path = tmp_path / ARRAYS_FILE
    content = path.read_bytes()
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    main = "points" if config.method == "hdbscan" else "centres"
    for change in ({main: arrays[main] * np.nan}, {"labels": arrays["labels"].astype(float)}, {main: arrays[main][:, :3]}):
        np.savez_compressed(path, **(arrays | change))
        with pytest.raises(ModelError, match="damaged"):
            load_clusterer(tmp_path)
    for at in range(0, len(content), max(1, len(content) // 50)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        with pytest.raises(ModelError, match="damaged"):
            load_clusterer(tmp_path)


@ALL
def test_unreadable_arrays_are_rejected_even_if_the_checksum_matches(
    config: ClusterConfig, tmp_path: Path, fitted: dict[str, Clusterer]
) -> None:
    fitted[config.method].save(tmp_path)
    path, mark = tmp_path / ARRAYS_FILE, json.loads((tmp_path / HEADER_FILE).read_text())
    intact = path.read_bytes()
    # The 5th byte of a zip's first local header is the version needed to read it; its directory repeats it.
    newer = bytearray(intact)
    newer[intact.rindex(b"PK\x01\x02") + 6] = 0xFF
    flipped = bytearray(intact)
    flipped[len(intact) // 3 : len(intact) // 3 + 40] = b"\xff" * 40
    for content in (b"", bytes(newer), bytes(flipped), intact[: len(intact) // 2], b"no npz"):
        path.write_bytes(content)
        sealed = mark | {"sha256": hashlib.sha256(content).hexdigest()}
        (tmp_path / HEADER_FILE).write_text(json.dumps(sealed))
        with pytest.raises(ModelError, match="damaged"):
            load_clusterer(tmp_path)
    path.unlink()
    with pytest.raises(ModelError, match="missing"):
        load_clusterer(tmp_path)


@ALL
def test_new_rows_of_another_dimension_are_rejected(config: ClusterConfig, fitted: dict[str, Clusterer]) -> None:
    new, _ = blobs(30, seed=3)
    clusterer = fitted[config.method]
    with pytest.raises(ModelError, match="5 dimensions, but the clusterer was fitted with 24"):
        clusterer.assign(new[:, :5])
    with pytest.raises(ModelError, match=r"NaN.*row 17"):
        clusterer.assign(_broken(new))
    with pytest.raises(ModelError, match=r"zeros.*row 3"):
        clusterer.assign(_empty(new))
    with pytest.raises(ModelError, match="shape"):
        clusterer.assign(new[0])


@pytest.mark.parametrize(
    ("config", "name"), [(DENSITY, "sweep_rows"), (DENSITY, "tree_rows"), (CENTRES, "sweep_rows"), (WARD, "sweep_rows")]
)
def test_too_small_sample_setting_is_named(config: ClusterConfig, name: str) -> None:
    rows, _ = blobs(200)
    with pytest.raises(ModelError, match=rf"cluster\.{name} is 2, .*set cluster\.{name}="):
        fit_clusters(config.model_copy(update={name: 2}), rows, seed=0)


@ALL
def test_minimum_sample_is_enough(config: ClusterConfig) -> None:
    rows, _ = blobs(200)
    with pytest.raises(ModelError, match=r"set cluster\.sweep_rows=(\d+)") as told:
        fit_clusters(config.model_copy(update={"sweep_rows": 1}), rows, seed=0)
    least = int(re.findall(r"sweep_rows=(\d+)", str(told.value))[0])
    fit_clusters(config.model_copy(update={"sweep_rows": least}), rows, seed=0)


@ALL
def test_no_pickle_is_needed_to_read_one(config: ClusterConfig, tmp_path: Path, fitted: dict[str, Clusterer]) -> None:
    fitted[config.method].save(tmp_path)
    with np.load(tmp_path / ARRAYS_FILE, allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)
    assert json.loads((tmp_path / HEADER_FILE).read_text())["kind"] == config.method


def test_method_without_gpu_support_runs_on_the_cpu() -> None:
    with pytest.raises(ValueError, match="backend to auto or cpu"):
        ClusterConfig(method="ward", backend="gpu")


@ALL
@settings(max_examples=12)
@given(st.integers(30, 90), st.integers(2, 6), st.floats(0.05, 1.5), st.integers(0, 10_000))
def test_labels_name_clusters_that_have_rows(config: ClusterConfig, n: int, d: int, spread: float, seed: int) -> None:
    rows, _ = blobs(n, d=d, k=4, spread=spread, seed=seed)
    try:
        found = fit_clusters(config.model_copy(update={"pca_dims": None}), rows, seed=seed)
    except ModelError as error:
        if "noise" not in str(error):
            raise
        return
    k = len(found.clusterer.centroids)
    assert set(found.labels.tolist()) - {-1} == set(range(k))
    assert bool(np.isfinite(found.clusterer.centroids).all())
    assert len(found.coarse) == k
    again = found.clusterer.assign(rows)
    assert bool(((again >= -1) & (again < k)).all())
    if config.method == "kmeans":
        np.testing.assert_array_equal(again, found.labels)
    with tempfile.TemporaryDirectory() as folder:
        found.clusterer.save(Path(folder))
        np.testing.assert_array_equal(load_clusterer(folder).assign(rows), again)


@pytest.mark.parametrize("config", [WARD, BUTINA], ids=lambda config: config.method)
@settings(max_examples=12)
@given(st.integers(30, 90), st.floats(0.05, 1.5), st.integers(0, 10_000))
def test_order_of_rows_changes_no_cluster(config: ClusterConfig, n: int, spread: float, seed: int) -> None:
    rows, _ = blobs(n, d=5, k=4, spread=spread, seed=seed)
    order = np.random.default_rng(seed).permutation(n)
    plain = config.model_copy(update={"pca_dims": None, "thresholds": (0.7, 0.8, 0.9)})
    found, moved = fit_clusters(plain, rows, seed=0), fit_clusters(plain, rows[order], seed=0)
    np.testing.assert_array_equal(found.labels[order] < 0, moved.labels < 0)
    assert adjusted_rand_score(found.labels[order], moved.labels) == 1


@ALL
@pytest.mark.parametrize("scale", [1e-3, 8.0])
def test_size_of_the_numbers_changes_no_cluster(config: ClusterConfig, scale: float) -> None:
    rows, _ = blobs(300, spread=0.3)
    found = fit_clusters(config, rows, seed=0)
    scaled = fit_clusters(config, rows * np.float32(scale), seed=0)
    assert adjusted_rand_score(found.labels, scaled.labels) == 1


@pytest.mark.parametrize("config", [CENTRES, WARD, BUTINA], ids=lambda config: config.method)
def test_no_array_is_quadratic_in_rows(config: ClusterConfig) -> None:
    n = 12_000
    rows, _ = blobs(n, d=6, spread=0.6)
    few = {"pca_dims": None, "n_clusters": (6,), "n_init": 1, "micro_clusters": 200, "thresholds": (0.8,)}
    fit_clusters(config.model_copy(update=few), rows[:200], seed=0)  # imports must not be measured
    tracemalloc.start()
    fit_clusters(config.model_copy(update=few), rows, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n * 4 / 4
