"""HDBSCAN: clusters of any shape, noise, and new points without refitting (COMPASS, section 3.2.1).

Key property: new points are placed by approximate prediction on the fitted condensed tree, which never changes, so a
prompt gets the same cluster for as long as the clusterer is kept. How the spanning tree is built is the backend's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compass_ray.config import ClusterConfig
from compass_ray.models.clusterers.backends import Backend
from compass_ray.models.clusterers.checks import check_new_rows
from compass_ray.models.clusterers.condensed import CondensedTree, condense
from compass_ray.models.clusterers.dbcv import dbcv
from compass_ray.models.clusterers.placement import Placement
from compass_ray.models.clusterers.protocol import Float32, Float64, Int32, SweepCell
from compass_ray.models.clusterers.reduction import Reduction
from compass_ray.models.clusterers.storage import save_arrays, setting
from compass_ray.models.clusterers.validity import penalised, relative_validity, score

__all__ = ["Cell", "DensityClusterer", "Placement", "best", "check_settings", "fit_tree", "sweep"]

_TREE = ("branch", "density", "parent", "birth", "cluster", "peak")


@dataclass(frozen=True)
class DensityClusterer:
    """A fitted HDBSCAN: reduced points float32[f, r] with their core distances float64[f], and the condensed tree.

    ``labels`` int32[n] covers all rows given to the fit, also those that were placed rather than put in the tree.
    """

    kind: ClassVar[str] = "hdbscan"
    labels: Int32
    centroids: Float32
    reduction: Reduction
    points: Float32
    core: Float64
    min_samples: int
    tree: CondensedTree

    def assign(self, embeddings: Float32) -> Int32:
        """int32[n] cluster of each row float32[n, d], -1 for noise; see `Clusterer`."""
        return self.place(embeddings)[0]

    def place(self, embeddings: Float32) -> tuple[Int32, Float32]:
        """Cluster and membership strength of each row."""
        points = self.reduction(check_new_rows(embeddings, self.reduction.dimensions))
        return Placement(self.points, self.core, self.min_samples, self.tree).place(points)

    def save(self, folder: Path) -> None:
        """Write it into ``folder``."""
        tree = {name: getattr(self.tree, name) for name in _TREE}
        own = {"labels": self.labels, "centroids": self.centroids, "points": self.points, "core": self.core}
        save_arrays(folder, self.kind, {"min_samples": self.min_samples}, own | tree | self.reduction.arrays())

    @classmethod
    def of(cls, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> DensityClusterer:
        """From what `save` stored."""
        return cls(
            labels=arrays["labels"],
            centroids=arrays["centroids"],
            reduction=Reduction.of(arrays),
            points=arrays["points"],
            core=arrays["core"],
            min_samples=setting(settings, "min_samples", int),
            tree=CondensedTree(**{name: arrays[name] for name in _TREE}),
        )


@dataclass(frozen=True)
class Cell:
    """One setting tried on a sample: ``score`` is what settings are compared by, ``details`` what it is made of."""

    min_samples: int
    min_cluster_size: int
    score: float
    details: Mapping[str, float]
    tree: CondensedTree
    edges: Float64
    core: Float64

    def row(self, chosen: bool) -> SweepCell:
        """As the sweep's table shows it."""
        settings = {"min_cluster_size": self.min_cluster_size, "min_samples": self.min_samples}
        noise = float(np.mean(self.tree.labels < 0))
        return SweepCell(settings, self.score, self.tree.n_clusters, noise, chosen, self.details)


def sweep(config: ClusterConfig, points: Float32, backend: Backend) -> list[Cell]:
    """Every setting on reduced points float32[m, r]: one search for neighbours, one spanning tree for each min_samples.

    All are screened by relative validity, which compares settings on one tree. The best of each tree, and settings that
    find the same clusters, are then scored by exact validity on at most `dbcv.ROWS` rows, which compares them all. Both
    count times (1 - noise share). A setting left out by the screen keeps its screen's score, but no more than the lowest
    exact one, so that scores stand in the order of preference.
    """
    cells: list[Cell] = []
    finalists: list[Cell] = []
    distances = backend.neighbour_distances(points, max(config.min_samples))
    for min_samples in config.min_samples:
        core = distances[:, min(min_samples, distances.shape[1] - 1)]
        edges = backend.spanning_tree(points, core, min_samples)
        tried = [_screened(min_samples, size, edges, core) for size in config.min_cluster_size]
        cells += tried
        finalists.append(best(tried))
    return _scored(cells, finalists, points)


def _screened(min_samples: int, size: int, edges: Float64, core: Float64) -> Cell:
    tree = condense(edges, size)
    details = {"relative_validity": relative_validity(edges, tree.labels)}
    return Cell(min_samples, size, score(edges, tree.labels), details, tree, edges, core)


def _scored(cells: list[Cell], finalists: list[Cell], points: Float32) -> list[Cell]:
    exact = {_same(cell): dbcv(points, cell.tree.labels) for cell in finalists}
    reached = {_same(cell): penalised(exact[_same(cell)], cell.tree.labels) for cell in finalists}
    lowest = min(reached.values())
    return [_final(cell, exact.get(_same(cell)), reached.get(_same(cell), lowest)) for cell in cells]


def _final(cell: Cell, validity: float | None, reached: float) -> Cell:
    if validity is None:
        return replace(cell, score=min(cell.score, reached))
    return replace(cell, score=reached, details={**cell.details, "dbcv": validity})


def _same(cell: Cell) -> bytes:
    """Equal for settings that find the same clusters."""
    return cell.tree.labels.tobytes()


def best(cells: list[Cell]) -> Cell:
    """The cell with the highest score; of equals one that was scored exactly, and of those the first."""
    return max(cells, key=lambda cell: (cell.score, "dbcv" in cell.details))


def fit_tree(cell: Cell, points: Float32, backend: Backend) -> Cell:
    """The cell's setting fitted on other points."""
    core = backend.neighbour_distances(points, cell.min_samples)[:, -1]
    edges = backend.spanning_tree(points, core, cell.min_samples)
    return _screened(cell.min_samples, cell.min_cluster_size, edges, core)


def check_settings(config: ClusterConfig) -> int:
    """Rows that the sweep needs at least."""
    return 2 * max(*config.min_cluster_size, *config.min_samples) + 1
