"""HDBSCAN: clusters of any shape, noise, and new points without refitting (COMPASS, section 3.2.1).

Key property: new points are placed by approximate prediction on the fitted condensed tree, which never changes, so a
prompt gets the same cluster for as long as the clusterer is kept. How the spanning tree is built is the backend's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compass_ray.config import ClusterConfig
from compass_ray.models.clusterers.backends import Backend
from compass_ray.models.clusterers.condensed import CondensedTree, condense
from compass_ray.models.clusterers.protocol import Float32, Float64, Int32, Int64, SweepCell
from compass_ray.models.clusterers.reduction import Reduction
from compass_ray.models.clusterers.storage import save_arrays
from compass_ray.models.clusterers.validity import score

_BLOCK = 4096
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
        """int32[n] cluster of each row float32[n, d], -1 for noise."""
        return self.place(embeddings)[0]

    def place(self, embeddings: Float32) -> tuple[Int32, Float32]:
        """Cluster and membership strength of each row."""
        return Placement(self.points, self.core, self.min_samples, self.tree).place(self.reduction(embeddings))

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
            min_samples=settings["min_samples"],
            tree=CondensedTree(**{name: arrays[name] for name in _TREE}),
        )


class Placement:
    """Approximate prediction: where new points would join a fitted tree."""

    def __init__(self, points: Float32, core: Float64, min_samples: int, tree: CondensedTree) -> None:
        """``points`` float32[f, r] and ``core`` float64[f] are those the tree was made of."""
        from sklearn.neighbors import NearestNeighbors

        self.core, self.tree, self.min_samples = core, tree, min_samples
        neighbours = min(max(2 * min_samples, min_samples + 1), len(points))
        self.search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(points.astype(np.float64))

    def place(self, points: Float32) -> tuple[Int32, Float32]:
        """Cluster int32[n] and strength float32[n] of reduced points float32[n, r]."""
        labels, strength = np.full(len(points), -1, np.int32), np.zeros(len(points), np.float32)
        for start in range(0, len(points), _BLOCK):
            part = slice(start, start + _BLOCK)
            labels[part], strength[part] = self._block(points[part].astype(np.float64))
        return labels, strength

    def _block(self, points: Float64) -> tuple[Int32, Float32]:
        distance, index = self.search.kneighbors(points)
        own = distance[:, min(self.min_samples, distance.shape[1] - 1), None]
        reach = np.maximum(np.maximum(distance, own), self.core[index])
        nearest = reach.argmin(1)
        rows = np.arange(len(points))
        density = 1 / np.maximum(reach[rows, nearest], 1e-12)
        branch = self._climb(index[rows, nearest], density)
        labels = self.tree.cluster[branch]
        return labels, self.tree.strength(labels, density)

    def _climb(self, neighbour: Int64, density: Float64) -> Int64:
        """The branch that reaches down to each point's density, from its neighbour's branch upwards."""
        tree = self.tree
        branch: Int64 = tree.branch[neighbour]
        climbs = tree.density[neighbour] > density
        while (moving := climbs & (tree.parent[branch] >= 0) & (tree.birth[branch] >= density)).any():
            branch = np.where(moving, tree.parent[branch], branch)
        return branch


@dataclass(frozen=True)
class Cell:
    """One setting tried on a sample."""

    min_samples: int
    min_cluster_size: int
    score: float
    tree: CondensedTree
    edges: Float64
    core: Float64

    def row(self, chosen: bool) -> SweepCell:
        """As the sweep's table shows it."""
        settings = {"min_cluster_size": self.min_cluster_size, "min_samples": self.min_samples}
        noise = float(np.mean(self.tree.labels < 0))
        return SweepCell(settings, self.score, self.tree.n_clusters, noise, chosen)


def sweep(config: ClusterConfig, points: Float32, backend: Backend) -> list[Cell]:
    """Every setting on reduced points float32[m, r]: one spanning tree for each min_samples."""
    cells: list[Cell] = []
    distances = backend.neighbour_distances(points, max(config.min_samples))
    for min_samples in config.min_samples:
        core = distances[:, min(min_samples, distances.shape[1] - 1)]
        edges = backend.spanning_tree(points, core, min_samples)
        for size in config.min_cluster_size:
            tree = condense(edges, size)
            cells.append(Cell(min_samples, size, score(edges, tree.labels), tree, edges, core))
    return cells


def best(cells: list[Cell]) -> Cell:
    """The cell with the highest score; of equals the first."""
    return max(cells, key=lambda cell: cell.score)


def fit_tree(cell: Cell, points: Float32, backend: Backend) -> Cell:
    """The cell's setting fitted on other points."""
    core = backend.neighbour_distances(points, cell.min_samples)[:, -1]
    edges = backend.spanning_tree(points, core, cell.min_samples)
    tree = condense(edges, cell.min_cluster_size)
    return Cell(cell.min_samples, cell.min_cluster_size, score(edges, tree.labels), tree, edges, core)


def check_settings(config: ClusterConfig) -> int:
    """Rows that the sweep needs at least."""
    pairs = list(product(config.min_cluster_size, config.min_samples))
    return max(2 * max(size, samples) + 1 for size, samples in pairs)
