"""Taylor-Butina against the textbook's loop over all neighbours, and the search for its threshold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from compass_ray.clustering import butina, fit_clusters, sphere_exclusion
from compass_ray.clustering.partition import split_into_cells
from compass_ray.clustering.sphere_exclusion import count_neighbours, grow_spheres
from compass_ray.config import ClusterConfig
from compass_ray.models.errors import ModelError
from tests.unit.clustering.shapes import Rows, blobs

BUTINA = ClusterConfig(method="butina", pca_dims=8, backend="cpu")


def unit(n: int, d: int, seed: int) -> Rows:
    points = np.random.default_rng(seed).normal(size=(n, d))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def textbook(points: Rows, threshold: float) -> npt.NDArray[np.int64]:
    """All pairs, all lists of neighbours, the longest first; ties by coordinates; singletons are -1."""
    similar = points @ points.T >= np.float32(threshold)
    np.fill_diagonal(similar, True)
    order = sorted(range(len(points)), key=lambda i: (-int(similar[i].sum()), points[i].tolist()))
    labels, seen, next_label = np.full(len(points), -1), np.zeros(len(points), bool), 0
    for centre in order:
        if seen[centre]:
            continue
        members = [j for j in range(len(points)) if similar[centre, j] and not seen[j]]
        seen[members] = True
        if len(members) > 1:
            labels[members] = next_label
            next_label += 1
    return labels


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(2, 5), st.sampled_from([0.3, 0.7, 0.82, 0.95]), st.integers(0, 10_000))
def test_spheres_are_the_textbooks(n: int, d: int, threshold: float, seed: int) -> None:
    points = unit(n, d, seed)
    found = grow_spheres(points, count_neighbours(points, [threshold])[0], threshold)
    np.testing.assert_array_equal(found.labels, textbook(points, threshold))
    assert found.assigned_share == np.mean(textbook(points, threshold) >= 0)
    np.testing.assert_array_equal(found.labels[found.centre_rows], np.arange(len(found.centre_rows)))
    for label, centre in enumerate(found.centre_rows):
        assert bool((points[found.labels == label] @ points[centre] >= threshold - 1e-6).all())


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = unit(300, 3, 0)
    all_counts = count_neighbours(points, [0.7, 0.8, 0.9])
    brute = np.stack([(points @ points.T >= np.float32(t)).sum(1) for t in (0.7, 0.8, 0.9)])
    expected = grow_spheres(points, all_counts[1], 0.8)
    monkeypatch.setattr(sphere_exclusion, "_BLOCK_CELLS", 700)
    monkeypatch.setattr(sphere_exclusion, "_AHEAD", 3)
    np.testing.assert_array_equal(all_counts, brute)
    np.testing.assert_array_equal(count_neighbours(points, [0.7, 0.8, 0.9]), brute)
    np.testing.assert_array_equal(grow_spheres(points, all_counts[1], 0.8).labels, expected.labels)


def test_rows_without_direction_are_alone() -> None:
    points = np.vstack([np.zeros((2, 3)), np.eye(3)[[0, 0]]]).astype(np.float32)
    assert grow_spheres(points, count_neighbours(points, [0.8])[0], 0.8).labels.tolist() == [-1, -1, 0, 0]


def test_threshold_has_most_clusters_among_those_that_assign_enough() -> None:
    rows, _ = blobs(500, k=12, spread=0.6)
    found = fit_clusters(BUTINA, rows, seed=0)
    chosen = next(cell for cell in found.sweep if cell.chosen)
    enough = [cell for cell in found.sweep if cell.details["enough_assigned"]]
    assert chosen.n_clusters == max(cell.n_clusters for cell in enough)
    assert chosen.details["assigned"] >= 0.95
    assert chosen.noise_share == pytest.approx(float(np.mean(found.labels < 0)))
    tried = [float(cell.parameters["threshold"]) for cell in found.sweep]
    assert tried == sorted(set(tried))
    assert set(BUTINA.thresholds) <= set(tried)
    assert 0.7 <= min(tried) <= max(tried) <= 0.95


def test_search_refines_the_grid() -> None:
    rows, _ = blobs(500, k=12, spread=0.6)
    coarse = BUTINA.model_copy(update={"thresholds": (0.7, 0.8, 0.9, 0.95)})
    found = fit_clusters(coarse, rows, seed=0)
    best_of_grid = max(cell.score for cell in found.sweep if cell.parameters["threshold"] in coarse.thresholds)
    assert next(cell for cell in found.sweep if cell.chosen).score >= best_of_grid
    assert len(found.sweep) > len(coarse.thresholds)


def test_if_no_threshold_assigns_enough_rows_the_best_one_is_used_and_recorded() -> None:
    points = unit(300, 8, 0)
    config = BUTINA.model_copy(update={"pca_dims": None})
    found = fit_clusters(config, points, seed=0)
    chosen = next(cell for cell in found.sweep if cell.chosen)
    assert chosen.details["enough_assigned"] == 0
    assert chosen.details["assigned"] == max(cell.details["assigned"] for cell in found.sweep) < 0.95
    assert chosen.score == max(cell.score for cell in found.sweep) < 0


def test_one_threshold_needs_no_search() -> None:
    rows, truth = blobs(300)
    found = fit_clusters(BUTINA.model_copy(update={"thresholds": (0.8,)}), rows, seed=0)
    assert [cell.parameters["threshold"] for cell in found.sweep] == [0.8]
    assert adjusted_rand_score(found.labels, truth) > 0.95


def test_new_rows_join_the_nearest_centre_within_the_threshold() -> None:
    rows, _ = blobs(300, spread=0.5)
    config = BUTINA.model_copy(update={"pca_dims": None, "thresholds": (0.7,)})
    found = fit_clusters(config, rows, seed=0)
    assert isinstance(found.clusterer, butina.ButinaClusterer)
    new = np.vstack([blobs(80, spread=0.5, seed=2)[0], -found.clusterer.centres[:1]])
    similar = new @ found.clusterer.centres.T
    expected = np.where(similar.max(1) >= 0.7, similar.argmax(1), -1)
    np.testing.assert_array_equal(found.clusterer.assign(new), expected)
    assert expected[-1] == -1 or similar[-1].max() >= 0.7
    # Centres are fitted rows, and each is its own nearest row.
    np.testing.assert_array_equal(found.clusterer.assign(found.clusterer.centres), np.arange(len(found.coarse)))


def test_error_for_noise_only_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"cluster\.thresholds"):
        fit_clusters(BUTINA.model_copy(update={"pca_dims": None}), np.eye(12, dtype=np.float32), seed=0)


@pytest.mark.parametrize("at_most", [40, 100, 999, 1000, 5000])
def test_cells_are_bounded_and_hold_each_row_once(at_most: int) -> None:
    rows, _ = blobs(1000)
    found = split_into_cells(rows, at_most, seed=0)
    assert max(map(len, found)) <= at_most
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(1000))
    assert (len(found) == 1) == (at_most >= 1000)


def test_cells_of_equal_rows_are_bounded_too() -> None:
    assert max(map(len, split_into_cells(np.ones((500, 4), np.float32), 60, seed=0))) <= 60


def test_spheres_end_at_the_borders_of_cells() -> None:
    rows, truth = blobs(1200)
    found = fit_clusters(BUTINA.model_copy(update={"cell_rows": 400}), rows, seed=0)
    assert adjusted_rand_score(found.labels[found.labels >= 0], truth[found.labels >= 0]) > 0.9
    parts = split_into_cells(rows, 400, seed=0)
    spread = butina.fit_spheres(rows, 0.5, parts)
    for part in parts:
        inside = set(spread.labels[part].tolist()) - {-1}
        assert not inside & set(np.delete(spread.labels, part).tolist())


def sparse(n: int, a_topic: int, seed: int = 0) -> Rows:
    """Rows of many topics, each so small that a thinned sample often has one row of it."""
    rng = np.random.default_rng(seed)
    topics = unit(n // a_topic, 16, seed)
    rows = topics[rng.permutation(n) % len(topics)] + 0.05 * rng.normal(size=(n, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_thresholds_are_scored_on_cells_as_dense_as_the_fit() -> None:
    # With 6 rows per topic, most rows of a sample of every 12th row have no other row of their topic.
    rows = sparse(3000, 6)
    config = BUTINA.model_copy(update={"pca_dims": None, "thresholds": (0.8, 0.85, 0.9), "sweep_rows": 250, "cell_rows": 300})
    found = fit_clusters(config, rows, seed=0)
    chosen = next(cell for cell in found.sweep if cell.chosen)
    assert chosen.details["enough_assigned"] == 1
    assert chosen.details["assigned_in_fit"] == pytest.approx(float(np.mean(found.labels >= 0)))
    assert chosen.details["assigned"] == pytest.approx(chosen.details["assigned_in_fit"], abs=0.03)
    assert all("assigned_in_fit" not in cell.details for cell in found.sweep if not cell.chosen)


def test_pool_that_fits_into_the_sweep_is_scored_completely() -> None:
    rows = sparse(600, 6)
    for cell_rows in (200, 600):
        config = BUTINA.model_copy(update={"pca_dims": None, "sweep_rows": 600, "cell_rows": cell_rows})
        chosen = next(cell for cell in fit_clusters(config, rows, seed=0).sweep if cell.chosen)
        assert chosen.details["assigned"] == chosen.details["assigned_in_fit"]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 400), st.integers(0, 99))
def test_scored_cells_are_complete_and_no_more_than_needed(sizes: list[int], at_least: int, seed: int) -> None:
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    taken = butina.evaluation_cells(parts, at_least, seed)
    held = sum(map(len, taken))
    assert min(at_least, sum(sizes)) <= held < at_least + max(sizes)
    assert {rows.tobytes() for rows in taken} <= {rows.tobytes() for rows in parts}
    assert [rows[0] for rows in taken] == sorted(rows[0] for rows in taken)
    assert [rows.tolist() for rows in taken] == [rows.tolist() for rows in butina.evaluation_cells(parts, at_least, seed)]
