"""HDBSCAN: clusters of any shape, noise, and new points without refitting (COMPASS, section 3.2.1).

New points are assigned by approximate prediction on the fitted condensed tree, which never changes. So a prompt always gets
the same cluster from the same clusterer. The backend builds the spanning tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compass_ray.clustering.approximate_predict import ApproximatePredictor
from compass_ray.clustering.backends import ClusteringBackend
from compass_ray.clustering.condensed_tree import CondensedTree, condense
from compass_ray.clustering.dbcv import dbcv
from compass_ray.clustering.input_checks import check_new_rows
from compass_ray.clustering.pca import PcaReduction
from compass_ray.clustering.protocol import Float32, Float64, Int32, SweepCell
from compass_ray.clustering.relative_validity import apply_noise_penalty, relative_validity, screening_score
from compass_ray.clustering.serialization import read_setting, save_arrays
from compass_ray.config import ClusterConfig

__all__ = ["ApproximatePredictor", "HdbscanClusterer", "SweepPoint", "fit_tree", "min_sweep_rows", "select_best", "sweep"]

_TREE_ARRAYS = ("branch", "density", "parent", "birth", "cluster", "peak")


@dataclass(frozen=True)
class HdbscanClusterer:
    """A fitted HDBSCAN: reduced points float32[f, r] with their core distances float64[f], and the condensed tree.

    ``labels`` int32[n] covers all fitted rows, including those that were assigned by prediction and are not in the tree.
    """

    kind: ClassVar[str] = "hdbscan"
    labels: Int32
    centroids: Float32
    reduction: PcaReduction
    points: Float32
    core: Float64
    min_samples: int
    tree: CondensedTree

    def assign(self, embeddings: Float32) -> Int32:
        """int32[n] cluster of each row float32[n, d], -1 for noise; see `Clusterer`."""
        return self.approximate_predict(embeddings)[0]

    def approximate_predict(self, embeddings: Float32) -> tuple[Int32, Float32]:
        """Cluster and membership strength of each row."""
        points = self.reduction(check_new_rows(embeddings, self.reduction.input_dimensions))
        return ApproximatePredictor(self.points, self.core, self.min_samples, self.tree).predict(points)

    def save(self, folder: Path) -> None:
        """Write the clusterer into ``folder``."""
        tree = {name: getattr(self.tree, name) for name in _TREE_ARRAYS}
        fields = {"labels": self.labels, "centroids": self.centroids, "points": self.points, "core": self.core}
        save_arrays(folder, self.kind, {"min_samples": self.min_samples}, fields | tree | self.reduction.to_arrays())

    @classmethod
    def from_arrays(cls, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> HdbscanClusterer:
        """Create it from what `save` stored."""
        return cls(
            labels=arrays["labels"],
            centroids=arrays["centroids"],
            reduction=PcaReduction.from_arrays(arrays),
            points=arrays["points"],
            core=arrays["core"],
            min_samples=read_setting(settings, "min_samples", int),
            tree=CondensedTree(**{name: arrays[name] for name in _TREE_ARRAYS}),
        )


@dataclass(frozen=True)
class SweepPoint:
    """One setting fitted on a sample. ``score`` ranks settings; ``details`` are the measures behind it."""

    min_samples: int
    min_cluster_size: int
    score: float
    details: Mapping[str, float]
    tree: CondensedTree
    edges: Float64
    core: Float64

    def to_sweep_cell(self, chosen: bool) -> SweepCell:
        """The row of the sweep's table."""
        settings = {"min_cluster_size": self.min_cluster_size, "min_samples": self.min_samples}
        noise = float(np.mean(self.tree.labels < 0))
        return SweepCell(settings, self.score, self.tree.n_clusters, noise, chosen, self.details)


def sweep(config: ClusterConfig, points: Float32, backend: ClusteringBackend) -> list[SweepPoint]:
    """Fit every setting on reduced points float32[m, r]: one neighbour search, one spanning tree for each min_samples.

    Relative validity screens all settings of one tree. The best of each tree, and settings that find the same clusters, are then
    scored by exact validity on at most `dbcv.MAX_ROWS` rows, which is comparable between trees. Both are multiplied by
    (1 - noise share). A setting without an exact score keeps its screening score, but at most the lowest exact one, so that
    scores are in the order of preference.
    """
    cells: list[SweepPoint] = []
    finalists: list[SweepPoint] = []
    distances = backend.neighbour_distances(points, max(config.min_samples))
    for min_samples in config.min_samples:
        core = distances[:, min(min_samples, distances.shape[1] - 1)]
        edges = backend.spanning_tree(points, core, min_samples)
        screened = [_screen(min_samples, size, edges, core) for size in config.min_cluster_size]
        cells += screened
        finalists.append(select_best(screened))
    return _score_finalists(cells, finalists, points)


def _screen(min_samples: int, size: int, edges: Float64, core: Float64) -> SweepPoint:
    tree = condense(edges, size)
    details = {"relative_validity": relative_validity(edges, tree.labels)}
    return SweepPoint(min_samples, size, screening_score(edges, tree.labels), details, tree, edges, core)


def _score_finalists(cells: list[SweepPoint], finalists: list[SweepPoint], points: Float32) -> list[SweepPoint]:
    exact = {_clusters_key(cell): dbcv(points, cell.tree.labels) for cell in finalists}
    scores = {_clusters_key(cell): apply_noise_penalty(exact[_clusters_key(cell)], cell.tree.labels) for cell in finalists}
    lowest = min(scores.values())
    return [_with_final_score(cell, exact.get(_clusters_key(cell)), scores.get(_clusters_key(cell), lowest)) for cell in cells]


def _with_final_score(cell: SweepPoint, validity: float | None, score: float) -> SweepPoint:
    if validity is None:
        return replace(cell, score=min(cell.score, score))
    return replace(cell, score=score, details={**cell.details, "dbcv": validity})


def _clusters_key(cell: SweepPoint) -> bytes:
    """Equal for settings that find the same clusters."""
    return cell.tree.labels.tobytes()


def select_best(cells: list[SweepPoint]) -> SweepPoint:
    """The cell with the highest score. Among equals, one with an exact score is preferred, then the first."""
    return max(cells, key=lambda cell: (cell.score, "dbcv" in cell.details))


def fit_tree(cell: SweepPoint, points: Float32, backend: ClusteringBackend) -> SweepPoint:
    """Fit the cell's setting on other points."""
    core = backend.neighbour_distances(points, cell.min_samples)[:, -1]
    edges = backend.spanning_tree(points, core, cell.min_samples)
    return _screen(cell.min_samples, cell.min_cluster_size, edges, core)


def min_sweep_rows(config: ClusterConfig) -> int:
    """Minimum number of rows for the sweep."""
    return 2 * max(*config.min_cluster_size, *config.min_samples) + 1
