"""Taylor-Butina: spheres of cosine similarity, the largest first; singletons are noise (COMPASS, appendix E).

A new point joins the nearest centre if it is within its sphere, otherwise it is noise. The threshold is the one with most
clusters among those that leave at most ``1 - cluster.min_assigned`` of the rows unassigned. If no threshold does, the one
with the fewest unassigned rows is used, and the sweep's table records it. The cluster count peaks inside the range, where the
paper's bisection does not look. So the search uses a grid first, then halved steps around its best. A large pool is scored on
complete cells of its partition: in every n-th row, neighbours would be as rare as rows, and far more rows would be singletons
than in the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compass_ray.clustering.centroid_clusterer import prepare_points
from compass_ray.clustering.centroids import spherical_means
from compass_ray.clustering.input_checks import check_new_rows
from compass_ray.clustering.partition import split_into_cells
from compass_ray.clustering.pca import PcaReduction, fit_pca
from compass_ray.clustering.protocol import FitResult, Float32, Int32, Int64, SweepCell, mark_best
from compass_ray.clustering.serialization import read_setting, save_arrays
from compass_ray.clustering.sphere_exclusion import Spheres, count_neighbours, grow_spheres
from compass_ray.config import ClusterConfig
from compass_ray.models.errors import ModelError

_REFINEMENTS = 3
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class ButinaClusterer:
    """Unit centres float32[K, r] in the reduced space, and the minimum similarity of a row to its centre."""

    kind: ClassVar[str] = "butina"
    labels: Int32
    centroids: Float32
    reduction: PcaReduction
    centres: Float32
    threshold: float

    def assign(self, embeddings: Float32) -> Int32:
        """int32[n] nearest centre of each row float32[n, d], -1 if it is not similar enough; see `Clusterer`."""
        points = prepare_points(self.reduction(check_new_rows(embeddings, self.reduction.input_dimensions)), "cosine")
        labels = np.full(len(points), -1, np.int32)
        block = max(1, _BLOCK_CELLS // len(self.centres))
        for start in range(0, len(points), block):
            similar = points[start : start + block] @ self.centres.T
            near = similar.argmax(1)
            within = similar[np.arange(len(near)), near] >= np.float32(self.threshold)
            labels[start : start + block] = np.where(within, near, -1)
        return labels

    def save(self, folder: Path) -> None:
        """Write the clusterer into ``folder``."""
        fields = {"labels": self.labels, "centroids": self.centroids, "centres": self.centres}
        save_arrays(folder, self.kind, {"threshold": self.threshold}, fields | self.reduction.to_arrays())

    @classmethod
    def from_arrays(cls, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> ButinaClusterer:
        """Create it from what `save` stored."""
        fields = {name: arrays[name] for name in ("labels", "centroids", "centres")}
        return cls(
            reduction=PcaReduction.from_arrays(arrays),
            threshold=float(read_setting(settings, "threshold", (int, float))),
            **fields,
        )


def fit(config: ClusterConfig, rows: Float32, rng: np.random.Generator) -> FitResult:
    """Search the threshold on complete cells of rows float32[n, d]; cluster all rows with the best one, cell by cell.

    The chosen setting's ``assigned_in_fit`` is the fraction of all rows that the fit assigned to clusters.

    Raises:
        ModelError: every row is a singleton at every threshold.
    """
    reduction, seed = fit_pca(rows, config.pca_dims, whiten=config.whiten), int(rng.integers(2**31))
    points = prepare_points(reduction(rows), "cosine")
    parts = split_into_cells(points, config.cell_rows, seed)
    sweep_cells = sweep(config, [points[part] for part in evaluation_cells(parts, config.sweep_rows, seed)])
    threshold = float(next(cell.parameters["threshold"] for cell in sweep_cells if cell.chosen))
    spheres = fit_spheres(points, threshold, parts)
    if not len(spheres.centre_rows):
        raise ModelError(
            f"Taylor-Butina finds no two of {len(rows)} rows with similarity {threshold} or more, so all are noise; lower "
            f"cluster.thresholds (they are {list(config.thresholds)}), or set cluster.method=kmeans"
        )
    strength = (spheres.labels >= 0).astype(np.float32)
    centroids = spherical_means(rows, spheres.labels, strength)
    clusterer = ButinaClusterer(spheres.labels, centroids, reduction, points[spheres.centre_rows], threshold)
    return FitResult(clusterer, strength, tuple(_with_fit(cell, spheres.assigned_share) for cell in sweep_cells))


def evaluation_cells(parts: list[Int64], at_least: int, seed: int) -> list[Int64]:
    """Complete cells, chosen in seeded order, with at least ``at_least`` rows in total; all cells if they have fewer rows.

    >>> [rows.tolist() for rows in evaluation_cells([np.arange(3), np.arange(3, 6)], 6, seed=0)]
    [[0, 1, 2], [3, 4, 5]]
    """
    order = np.random.default_rng(seed).permutation(len(parts))
    before = np.cumsum([0, *(len(parts[i]) for i in order)])[:-1]
    return [parts[i] for i in np.sort(order[before < at_least])]


def sweep(config: ClusterConfig, parts: list[Float32]) -> tuple[SweepCell, ...]:
    """Score the grid of thresholds on cells of unit points float32[m, r], then halved steps around the best; ascending."""
    grid = sorted(set(config.thresholds))
    cells = _try_thresholds(grid, parts, config.min_assigned)
    step = float(min(np.diff(grid), default=0.0))
    for _ in range(_REFINEMENTS):
        step, middle = step / 2, max(cells, key=lambda t: cells[t].score)
        neighbours = [round(middle - step, 4), round(middle + step, 4)]
        cells |= _try_thresholds(
            [t for t in neighbours if grid[0] <= t <= grid[-1] and t not in cells], parts, config.min_assigned
        )
    return mark_best([cells[threshold] for threshold in sorted(cells)])


def fit_spheres(points: Float32, threshold: float, parts: list[Int64]) -> Spheres:
    """Spheres of unit points float32[n, r], each within one cell; ``parts`` int64[m] are the rows of each cell."""
    labels, centres = np.full(len(points), -1, np.int32), [np.zeros(0, np.int64)]
    for rows in parts:
        part = points[rows]
        spheres = grow_spheres(part, count_neighbours(part, [threshold])[0], threshold)
        labels[rows] = np.where(spheres.labels >= 0, spheres.labels + sum(map(len, centres)), -1)
        centres.append(rows[spheres.centre_rows])
    return Spheres(labels, np.concatenate(centres))


def _try_thresholds(thresholds: list[float], parts: list[Float32], min_assigned: float) -> dict[float, SweepCell]:
    if not thresholds:
        return {}
    counts = [count_neighbours(part, thresholds) for part in parts]
    cells: dict[float, SweepCell] = {}
    for i, threshold in enumerate(thresholds):
        spheres = [grow_spheres(part, count[i], threshold) for part, count in zip(parts, counts, strict=True)]
        cells[threshold] = _make_sweep_cell(threshold, spheres, min_assigned)
    return cells


def _make_sweep_cell(threshold: float, parts: list[Spheres], min_assigned: float) -> SweepCell:
    """Score: the number of clusters if enough rows are assigned; otherwise negative, higher with more assigned rows."""
    labels = np.concatenate([spheres.labels for spheres in parts])
    clusters, assigned = sum(len(spheres.centre_rows) for spheres in parts), float(np.mean(labels >= 0))
    enough = assigned >= min_assigned
    details = {"assigned": assigned, "enough_assigned": float(enough)}
    return SweepCell(
        {"threshold": threshold}, float(clusters) if enough else assigned - 1, clusters, 1 - assigned, False, details
    )


def _with_fit(cell: SweepCell, assigned: float) -> SweepCell:
    return replace(cell, details={**cell.details, "assigned_in_fit": assigned}) if cell.chosen else cell
