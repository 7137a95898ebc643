"""Ward's hierarchical clusters: one tree, cut where the silhouette is best (COMPASS, appendix E).

Key property: no matrix of distances. A pool of at most ``cluster.micro_clusters`` rows has the exact tree of its rows; a
larger one has the tree of that many micro-clusters of a mini-batch k-means, each weighing as many rows as it holds. New
points join the nearest centre, as in the paper; no noise. Not the same as labels: a cut follows the tree, so that a
fitted row near a border may have another cluster's centre nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compass_ray.clustering.centroid_clusterer import (
    SILHOUETTE_ROWS,
    CentroidClusterer,
    Metric,
    metrics_to_try,
    prepare_points,
    silhouette,
)
from compass_ray.clustering.centroids import cluster_means, spherical_means
from compass_ray.clustering.partition import mini_batch_labels
from compass_ray.clustering.pca import fit_pca
from compass_ray.clustering.protocol import FitResult, Float32, Float64, Int32, Int64, SweepCell, mark_best
from compass_ray.clustering.ward_tree import ward_tree
from compass_ray.config import ClusterConfig


class WardClusterer(CentroidClusterer):
    """Centres of the cut, each the mean of its cluster's rows."""

    kind: ClassVar[str] = "ward"


@dataclass(frozen=True)
class WardTree:
    """Merges float64[m - 1, 4] of micro-clusters; ``micro`` int32[n] is the micro-cluster of each row."""

    metric: Metric
    points: Float32
    micro: Int32
    merges: Float64

    def cut(self, k: int) -> Int32:
        """int32[n] cluster of each row, at most ``k`` of them."""
        from scipy.cluster.hierarchy import fcluster

        groups = fcluster(self.merges, k, "maxclust")
        return (np.unique(groups, return_inverse=True)[1].astype(np.int32))[self.micro]


def fit(config: ClusterConfig, rows: Float32, tried: Int64, rng: np.random.Generator) -> FitResult:
    """One tree for each metric over float32[n, d]; every cut of it is judged on rows of ``tried`` int64[m].

    Cuts cost next to nothing once a tree stands, so that it is made of the whole pool at once and nothing is fitted twice.
    """
    reduction = fit_pca(rows, config.pca_dims)
    reduced, seed = reduction(rows), int(rng.integers(2**31))
    judged = tried[rng.permutation(len(tried))[:SILHOUETTE_ROWS]]
    trees = {
        metric: grow_tree(prepare_points(reduced, metric), metric, config.micro_clusters, seed)
        for metric in metrics_to_try(config.metric)
    }
    cells = mark_best([cell for tree in trees.values() for cell in _make_sweep_cells(config, tree, judged)])
    winner = next(cell.parameters for cell in cells if cell.chosen)
    tree = next(tree for metric, tree in trees.items() if metric == winner["metric"])
    labels = tree.cut(int(winner["n_clusters"]))
    strength = np.ones(len(rows), np.float32)
    centres = cluster_means(tree.points, labels).astype(np.float32)
    clusterer = WardClusterer(labels, spherical_means(rows, labels, strength), reduction, centres, tree.metric)
    return FitResult(clusterer, strength, cells)


def grow_tree(points: Float32, metric: Metric, at_most: int, seed: int) -> WardTree:
    """The tree over ``points`` float32[n, r], as they are compared, through at most so many micro-clusters."""
    if len(points) <= at_most:
        return WardTree(metric, points, np.arange(len(points), dtype=np.int32), ward_tree(points, np.ones(len(points))))
    micro = mini_batch_labels(points, at_most, seed)
    return WardTree(metric, points, micro, ward_tree(cluster_means(points, micro), np.bincount(micro)))


def _make_sweep_cells(config: ClusterConfig, tree: WardTree, judged: Int64) -> list[SweepCell]:
    cells = []
    for k in (k for k in config.n_clusters if k < len(tree.points)):
        labels, settings = tree.cut(k), {"n_clusters": k, "metric": tree.metric}
        score = silhouette(tree.points[judged], labels[judged])
        cells.append(SweepCell(settings, score, int(labels.max()) + 1, 0.0, details={"leaves": float(len(tree.merges) + 1)}))
    return cells
