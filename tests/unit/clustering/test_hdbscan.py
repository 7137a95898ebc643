"""Density clustering and its validity, against the `hdbscan` package, every minimum spanning tree, and exact decimals."""

from __future__ import annotations

import doctest
import sys
import tracemalloc
from decimal import Decimal, localcontext
from importlib.machinery import ModuleSpec
from itertools import combinations, product
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from compass_ray.clustering import dbcv as dbcv_module
from compass_ray.clustering import fit_clusters, relative_validity
from compass_ray.clustering import hdbscan as density
from compass_ray.clustering.approximate_predict import ApproximatePredictor
from compass_ray.clustering.backends import CpuBackend, choose_backend
from compass_ray.clustering.condensed_tree import condense
from compass_ray.clustering.dbcv import core_distances, dbcv, subsample_clusters
from compass_ray.clustering.spanning_tree import neighbour_distances, spanning_tree
from compass_ray.config import ClusterConfig
from compass_ray.models.errors import ModelError

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
GRID = ClusterConfig(pca_dims=None, backend="cpu")
SMALL = ClusterConfig(pca_dims=None, backend="cpu", min_cluster_size=(5, 10), min_samples=(1, 5))


def blobs(n: int, d: int, *, k: int = 4, spread: float = 0.3, noise: float = 0.0, seed: int = 0) -> tuple[Rows, Labels]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    points = rng.normal(size=(k, d))[truth] + spread * rng.uniform(0.5, 1.5, k)[truth, None] * rng.normal(size=(n, d))
    stray = rng.choice(n, int(noise * n), replace=False)
    points[stray] = rng.uniform(points.min(0), points.max(0), size=(len(stray), d))
    truth[stray] = -1
    return points.astype(np.float32), truth.astype(np.int32)


def moons(n: int, seed: int = 0) -> tuple[Rows, Labels]:
    from sklearn.datasets import make_moons

    points, truth = make_moons(n, noise=0.05, random_state=seed)
    stray = np.random.default_rng(seed).uniform((-1.5, -1.0), (2.5, 1.5), size=(n // 12, 2))
    truth = np.concatenate([truth, np.full(len(stray), -1)])
    return np.concatenate([points, stray]).astype(np.float32), truth.astype(np.int32)


def package(points: Rows, size: int, samples: int) -> Any:
    import hdbscan

    fit = hdbscan.HDBSCAN(min_cluster_size=size, min_samples=samples, algorithm="prims_kdtree", prediction_data=True)
    return fit.fit(points.astype(np.float64))


def ours(points: Rows, size: int, samples: int) -> tuple[Any, Any]:
    core = neighbour_distances(points, samples)[:, -1]
    tree = condense(spanning_tree(points, core), size)
    return tree, ApproximatePredictor(points, core, samples, tree)


# Exact validity


@pytest.mark.parametrize("d", [1, 2, 5, 12])
@pytest.mark.parametrize("spread", [0.2, 0.6])
def test_validity_is_that_of_the_package_on_rows_in_order_of_density(d: int, spread: float) -> None:
    # Among equally long edges the package takes the one to the first row, compass_ray the one to the densest row.
    from hdbscan.validity import validity_index

    points, labels = blobs(240, d, spread=spread, noise=0.05)
    core = np.zeros(len(points))
    for cluster in range(4):
        core[labels == cluster] = core_distances(points[labels == cluster].astype(np.float64))
    order = np.argsort(core)
    expected = validity_index(points[order].astype(np.float64), labels[order])
    assert dbcv(points, labels) == pytest.approx(expected, abs=1e-6)


def test_validity_does_not_depend_on_the_order_of_rows() -> None:
    points, labels = blobs(300, 3, noise=0.1)
    order = np.random.default_rng(1).permutation(300)
    assert dbcv(points[order], labels[order]) == pytest.approx(dbcv(points, labels), abs=1e-9)


def _trees(n: int) -> list[tuple[tuple[int, int], ...]]:
    """Every spanning tree of n rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    found = []
    for edges in combinations(list(combinations(range(n), 2)), n - 1):
        a, b = np.array(edges).T
        if connected_components(coo_array((np.ones(n - 1), (a, b)), shape=(n, n)))[0] == 1:
            found.append(edges)
    return found


def _reach(a: Rows, core_a: Any, b: Rows, core_b: Any) -> Any:
    apart = np.linalg.norm(a[:, None].astype(float) - b[None], axis=2)
    return np.maximum(apart, np.maximum(np.asarray(core_a)[:, None], np.asarray(core_b)[None]))


def _core(points: Rows) -> list[float]:
    n, d = points.shape
    apart = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2)
    return [(sum(apart[i, j] ** -d for j in range(n) if j != i) / (n - 1)) ** (-1 / d) for i in range(n)]


def _possible(points: Rows) -> set[tuple[float, tuple[int, ...]]]:
    """Sparseness and inner rows of every minimum spanning tree of a cluster."""
    core = _core(points)
    reach = _reach(points, core, points, core)
    weighed = [(sum(reach[e] for e in tree), tree) for tree in _trees(len(points))]
    least = min(weight for weight, _ in weighed)
    found = set()
    for tree in (tree for weight, tree in weighed if weight <= least * (1 + 1e-12)):
        inner = tuple(np.flatnonzero(np.bincount(np.array(tree).ravel(), minlength=len(points)) > 1).tolist())
        edges = [e for e in tree if set(e) <= set(inner)] or tree
        found.add((max(reach[e] for e in edges), inner))
    return found


@settings(max_examples=20)
@given(st.integers(3, 5), st.integers(3, 5), st.integers(1, 3), st.integers(0, 10_000))
def test_validity_is_one_that_a_minimum_spanning_tree_gives(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)).astype(np.float32), (rng.normal(size=(m, d)) + 2).astype(np.float32)
    reach = _reach(a, _core(a), b, _core(b))
    values = []
    for (sparse_a, inner_a), (sparse_b, inner_b) in product(_possible(a), _possible(b)):
        apart = reach[np.ix_(inner_a, inner_b)].min()
        parts = [(n, sparse_a), (m, sparse_b)]
        values.append(sum(size / (n + m) * (apart - sparse) / max(apart, sparse) for size, sparse in parts))
    found = dbcv(np.concatenate([a, b]), np.repeat(np.array([0, 1], np.int32), [n, m]))
    assert min(abs(found - value) for value in values) < 1e-6


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_core_distances_are_exact_where_powers_leave_every_float(scale: float) -> None:
    points = (scale * np.random.default_rng(0).normal(size=(6, 1024))).astype(np.float32)
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 50, 10**9, -(10**9)
        apart = [[Decimal(float(np.linalg.norm(a.astype(float) - b))) for b in points] for a in points]
        sums = [sum((1 / each) ** 1024 for each in row if each) for row in apart]
        expected = [float((total / 5) ** (Decimal(-1) / 1024)) for total in sums]
    np.testing.assert_allclose(core_distances(points.astype(np.float64)), expected, rtol=1e-9)


@pytest.mark.parametrize("d", [2, 30, 768, 1024])
def test_good_clusters_are_worth_more_than_bad_ones(d: int) -> None:
    points, truth = blobs(400, d, spread=0.12 if d > 2 else 0.05)
    rng = np.random.default_rng(3)
    values = [
        dbcv(points, truth),
        dbcv(points, np.where(truth == 1, 0, truth).astype(np.int32)),
        dbcv(points, np.where(rng.random(400) < 0.1, rng.integers(4, size=400), truth).astype(np.int32)),
    ]
    assert all(-1 <= value <= 1 for value in values)
    assert values[0] > max(values[1:])
    assert values[0] > 0.3 > 0 > values[2]


def test_rows_outside_any_cluster_count_as_nothing() -> None:
    points, labels = blobs(200, 3)
    stray = np.concatenate([points, 50 + np.arange(150, dtype=np.float32).reshape(50, 3)])
    noise = np.concatenate([labels, np.full(50, -1, np.int32)])
    alone = np.concatenate([labels, np.arange(4, 54, dtype=np.int32)])
    assert dbcv(stray, noise) == pytest.approx(0.8 * dbcv(points, labels), rel=1e-6)
    assert dbcv(stray, alone) == dbcv(stray, noise)


def test_fewer_than_two_clusters_are_the_least_valid() -> None:
    points, labels = blobs(50, 3)
    assert dbcv(points, np.zeros(50, np.int32)) == dbcv(points, np.full(50, -1, np.int32)) == -1.0
    assert dbcv(points, labels) > -1


def test_copies_have_a_finite_validity() -> None:
    points, labels = blobs(60, 3)
    doubled, twice = np.repeat(points, 2, axis=0), np.repeat(labels, 2)
    assert -1 <= dbcv(doubled, twice) <= 1
    same = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0]], np.float32), 5, axis=0)
    assert dbcv(same, np.repeat(np.array([0, 1], np.int32), 5)) == 1.0
    assert dbcv(np.zeros((10, 2), np.float32), np.repeat(np.array([0, 1], np.int32), 5)) == 0.0


@given(st.lists(st.integers(2, 400), min_size=2, max_size=30), st.integers(1, 500), st.integers(0, 100))
def test_a_sample_is_bounded_and_spares_small_clusters(sizes: list[int], at_most: int, seed: int) -> None:
    ends = np.cumsum(sizes)
    members = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    kept = subsample_clusters(members, at_most, np.random.default_rng(seed))
    assert sum(len(each) for each in kept) <= max(at_most, 2 * len(sizes))
    for few, each in zip(kept, members, strict=True):
        assert len(few) >= min(len(each), 10, max(at_most // len(sizes), 2))
        assert len(np.intersect1d(few, each)) == len(few)
        assert bool((np.diff(few) > 0).all())


def test_a_sample_gives_nearly_the_validity_of_all_rows() -> None:
    points, labels = blobs(3_000, 12, k=6, spread=0.35, noise=0.05)
    whole, part = dbcv(points, labels), dbcv(points, labels, rows=1_000)
    assert part == pytest.approx(whole, abs=0.1)
    assert part == dbcv(points, labels, rows=1_000)


@pytest.mark.parametrize("module", [dbcv_module, relative_validity], ids=["dbcv", "validity"])
def test_examples_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


# The sweep


def test_the_sweep_has_every_setting_with_both_validities() -> None:
    points, _ = blobs(500, 5, spread=0.4, noise=0.1)
    table = fit_clusters(GRID, points, seed=0).sweep
    settings_ = [(cell.parameters["min_samples"], cell.parameters["min_cluster_size"]) for cell in table]
    assert settings_ == list(product(GRID.min_samples, GRID.min_cluster_size))
    exact = [cell for cell in table if "dbcv" in cell.details]
    assert {cell.parameters["min_samples"] for cell in exact} == set(GRID.min_samples)
    assert all("relative_validity" in cell.details for cell in table)
    assert all(cell.score == pytest.approx(cell.details["dbcv"] * (1 - cell.noise_share)) for cell in exact)
    assert next(cell for cell in table if cell.chosen) == max(exact, key=lambda cell: cell.score)
    assert max(cell.score for cell in table if cell not in exact) <= min(cell.score for cell in exact)
    assert table == fit_clusters(GRID, points, seed=0).sweep


def test_the_exact_validity_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = blobs(500, 5, spread=0.4, noise=0.1)
    monkeypatch.setattr(density, "dbcv", lambda _points, labels: float(np.mean(labels < 0)) / 2)
    cells = density.sweep(GRID, points, CpuBackend())
    exact = [cell for cell in cells if "dbcv" in cell.details]
    assert len({cell.score for cell in exact}) > 1
    assert density.select_best(cells) is max(exact, key=lambda cell: cell.score)


class Counting(CpuBackend):
    """Counts its calls."""

    def __init__(self) -> None:
        self.searches, self.trees = 0, 0

    def neighbour_distances(self, points: Rows, k: int) -> Any:
        self.searches += 1
        return super().neighbour_distances(points, k)

    def spanning_tree(self, points: Rows, core: Any, min_samples: int) -> Any:
        self.trees += 1
        return super().spanning_tree(points, core, min_samples)


def test_a_sweep_searches_once_and_grows_one_tree_for_each_min_samples() -> None:
    backend = Counting()
    assert len(density.sweep(GRID, blobs(300, 4)[0], backend)) == 12
    assert (backend.searches, backend.trees) == (1, 3)


# Clusters


def test_moons_are_separated_from_noise() -> None:
    points, truth = moons(900)
    found = fit_clusters(GRID, points, seed=0)
    inside = truth >= 0
    assert adjusted_rand_score(truth[inside], found.labels[inside]) > 0.95
    assert np.mean(found.labels[~inside] < 0) > 0.6


@pytest.mark.parametrize("seed", [0, 1])
def test_blobs_are_separated_from_noise(seed: int) -> None:
    points, truth = blobs(900, 10, k=6, spread=0.15, noise=0.1, seed=seed)
    assert adjusted_rand_score(truth, fit_clusters(GRID, points, seed=0).labels) > 0.95


@pytest.mark.parametrize("data", [blobs(700, 6, spread=0.4, noise=0.1)[0], moons(700)[0]], ids=["blobs", "moons"])
def test_labels_and_predictions_are_those_of_the_package_over_the_grid(data: Rows) -> None:
    # Not in every row: a tree may use any of several equally long edges.
    import hdbscan

    rng = np.random.default_rng(7)
    new = (data[rng.permutation(len(data))[:300]] + 0.05 * rng.normal(size=(300, data.shape[1]))).astype(np.float32)
    alike, placed = [], []
    for size, samples in product((5, 10, 20), (1, 5, 10)):
        oracle = package(data, size, samples)
        tree, placement = ours(data, size, samples)
        alike.append(adjusted_rand_score(tree.labels, oracle.labels_))
        labels, _ = hdbscan.approximate_predict(oracle, new.astype(np.float64))
        placed.append(adjusted_rand_score(placement.predict(new)[0], labels))
    assert min(alike) > 0.97
    assert np.mean(alike) > 0.995
    assert min(placed) > 0.95
    assert np.mean(placed) > 0.99


def test_rows_outside_the_tree_get_the_cluster_of_their_blob() -> None:
    points, truth = blobs(2_000, 6, spread=0.1)
    found = fit_clusters(SMALL.model_copy(update={"tree_rows": 500, "sweep_rows": 300}), points, seed=0)
    inside = found.labels >= 0
    assert len(found.clusterer.points) == 500  # type: ignore[attr-defined]
    assert inside.mean() > 0.9
    assert adjusted_rand_score(truth[inside], found.labels[inside]) == 1


def _peak(n: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Maximum bytes allocated by a fit."""
    points, _ = blobs(n, 8)
    peaks = []

    def untraced(*arguments: Any) -> Any:
        # The compiled condensing creates an object for every row; tracing them takes longer than the rest.
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        tree = condense(*arguments)
        tracemalloc.start()
        return tree

    monkeypatch.setattr(density, "condense", untraced)
    tracemalloc.start()
    fit_clusters(SMALL.model_copy(update={"min_samples": (5,)}), points, seed=0)
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    return max(peaks)


def test_no_array_is_quadratic_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    _peak(200, monkeypatch)  # imports modules once
    small, large = _peak(1_000, monkeypatch), _peak(8_000, monkeypatch)
    assert large < 4 * 8_000**2 / 4, "a quarter of all pairs as float32"
    assert large < 20 * small, "eight times the rows, where pairs are 64 times as many"


# cuML, as far as it can be tested without a GPU


class FakeHdbscan:
    """Has cuML's names and float32 weights, and grows the CPU's tree."""

    fits = 0

    def __init__(self, *, min_samples: int, gen_min_span_tree: bool, output_type: str) -> None:
        assert gen_min_span_tree
        assert output_type == "numpy"
        self.min_samples = min_samples

    def fit(self, points: Rows) -> FakeHdbscan:
        assert points.dtype == np.float32
        FakeHdbscan.fits += 1
        edges = spanning_tree(points, neighbour_distances(points, self.min_samples)[:, -1])
        edges[:, 2] = edges[:, 2].astype(np.float32) * (1 + 1e-4)
        self.minimum_spanning_tree_ = SimpleNamespace(to_numpy=lambda: edges)
        return self


class FakeNeighbours:
    """Blurs distances as float32 products do; a row is not always its own first neighbour."""

    def __init__(self, *, n_neighbors: int, algorithm: str, output_type: str) -> None:
        from sklearn.neighbors import NearestNeighbors

        assert (algorithm, output_type) == ("brute", "numpy")
        self.search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute")

    def fit(self, points: Rows) -> FakeNeighbours:
        self.search.fit(points)
        return self

    def kneighbors(self, points: Rows) -> Any:
        distance, found = self.search.kneighbors(points)
        return (distance + 1e-3).astype(np.float32), found[:, ::-1]


@pytest.fixture
def fake_cuml(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.cluster import KMeans

    parts = {
        "cuml": ModuleType("cuml"),
        "cuml.cluster": ModuleType("cuml.cluster"),
        "cuml.neighbors": ModuleType("cuml.neighbors"),
    }
    parts["cuml.cluster"].__dict__.update(HDBSCAN=FakeHdbscan, KMeans=KMeans)
    parts["cuml.neighbors"].__dict__.update(NearestNeighbors=FakeNeighbours)
    for name, module in parts.items():
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "compass_ray.clustering.cuml_backend", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    FakeHdbscan.fits = 0


@pytest.mark.usefixtures("fake_cuml")
def test_the_gpu_gives_the_labels_of_the_cpu_and_is_named() -> None:
    points, _ = blobs(600, 6, spread=0.4, noise=0.1)
    cpu = fit_clusters(GRID, points, seed=0)
    for asked in ("auto", "gpu"):
        gpu = fit_clusters(GRID.model_copy(update={"backend": asked}), points, seed=0)
        assert (gpu.backend, cpu.backend) == ("gpu", "cpu")
        np.testing.assert_array_equal(gpu.labels, cpu.labels)
        np.testing.assert_allclose(gpu.strength, cpu.strength, atol=1e-6)
        assert [cell.score for cell in gpu.sweep] == pytest.approx([cell.score for cell in cpu.sweep])
    assert FakeHdbscan.fits == 2 * len(GRID.min_samples)


@pytest.mark.usefixtures("fake_cuml")
def test_the_gpu_is_not_given_rows_with_more_copies_than_neighbours() -> None:
    points = np.repeat(blobs(100, 6)[0], 4, axis=0)
    gpu, cpu = choose_backend("gpu"), choose_backend("cpu")
    distances = gpu.neighbour_distances(points, 5)
    np.testing.assert_allclose(distances, cpu.neighbour_distances(points, 5), atol=1e-6)
    for samples in (1, 5):
        edges = gpu.spanning_tree(points, distances[:, samples], samples)
        np.testing.assert_allclose(edges[:, 2], cpu.spanning_tree(points, distances[:, samples], samples)[:, 2])
    assert FakeHdbscan.fits == 1


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_backend("auto").name == "cpu"


# Errors for rows that cannot be clustered


def test_fewer_rows_than_neighbours_names_how_many_are_needed() -> None:
    with pytest.raises(ModelError, match=r"needs 101"):
        fit_clusters(SMALL.model_copy(update={"min_samples": (50,)}), blobs(60, 4)[0], seed=0)


def test_one_row_and_identical_rows_are_rejected() -> None:
    with pytest.raises(ModelError, match="1 embedded row"):
        fit_clusters(SMALL, blobs(1, 4)[0], seed=0)
    with pytest.raises(ModelError, match="identical"):
        fit_clusters(SMALL, np.tile(blobs(1, 4)[0], (100, 1)), seed=0)


def test_noise_only_is_rejected() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 24)).astype(np.float32)
    with pytest.raises(ModelError, match="assigns all 60 rows to noise"):
        fit_clusters(SMALL.model_copy(update={"min_cluster_size": (25,)}), rows, seed=0)


def test_a_sweep_over_copies_of_one_row_finds_only_noise() -> None:
    rows = np.concatenate([np.tile(blobs(1, 4)[0], (300, 1)), blobs(5, 4, seed=1)[0]])
    cells = density.sweep(SMALL, rows[:300], CpuBackend())
    assert {cell.score for cell in cells} == {-2.0}
    assert all(np.isfinite(list(cell.details.values())).all() for cell in cells)
