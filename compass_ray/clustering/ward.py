"""Ward's hierarchical clusters: one tree, cut where the silhouette is best (COMPASS, appendix E).

No distance matrix. A pool of at most ``cluster.micro_clusters`` rows gets the exact tree of its rows. A larger one gets the
tree of that many micro-clusters from mini-batch k-means, each weighted by its number of rows. New points join the nearest
centre, as in the paper; there is no noise. `labels` may differ from `assign`: the cut follows the tree, so a fitted row near
a border may be nearer to the centre of another cluster.
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
        """int32[n] cluster of each row, at most ``k`` clusters."""
        from scipy.cluster.hierarchy import fcluster

        groups = fcluster(self.merges, k, "maxclust")
        return (np.unique(groups, return_inverse=True)[1].astype(np.int32))[self.micro]


def fit(config: ClusterConfig, rows: Float32, sample: Int64, rng: np.random.Generator) -> FitResult:
    """One tree per metric over float32[n, d]; each of its cuts is scored on rows of ``sample`` int64[m].

    Cuts of a tree cost almost nothing, so the tree is built once from the complete pool and nothing is fitted twice.
    """
    reduction = fit_pca(rows, config.pca_dims, whiten=config.whiten)
    reduced, seed = reduction(rows), int(rng.integers(2**31))
    scored = sample[rng.permutation(len(sample))[:SILHOUETTE_ROWS]]
    trees = {
        metric: grow_tree(prepare_points(reduced, metric), metric, config.micro_clusters, seed)
        for metric in metrics_to_try(config.metric)
    }
    cells = mark_best([cell for tree in trees.values() for cell in _make_sweep_cells(config, tree, scored)])
    best = next(cell.parameters for cell in cells if cell.chosen)
    tree = next(tree for metric, tree in trees.items() if metric == best["metric"])
    labels = tree.cut(int(best["n_clusters"]))
    strength = np.ones(len(rows), np.float32)
    centres = cluster_means(tree.points, labels).astype(np.float32)
    clusterer = WardClusterer(labels, spherical_means(rows, labels, strength), reduction, centres, tree.metric)
    return FitResult(clusterer, strength, cells)


def grow_tree(points: Float32, metric: Metric, at_most: int, seed: int) -> WardTree:
    """The tree over prepared ``points`` float32[n, r], through at most ``at_most`` micro-clusters."""
    if len(points) <= at_most:
        return WardTree(metric, points, np.arange(len(points), dtype=np.int32), ward_tree(points, np.ones(len(points))))
    micro = mini_batch_labels(points, at_most, seed)
    return WardTree(metric, points, micro, ward_tree(cluster_means(points, micro), np.bincount(micro)))


def _make_sweep_cells(config: ClusterConfig, tree: WardTree, scored: Int64) -> list[SweepCell]:
    cells = []
    for k in (k for k in config.n_clusters if k < len(tree.points)):
        labels, settings = tree.cut(k), {"n_clusters": k, "metric": tree.metric}
        score = silhouette(tree.points[scored], labels[scored])
        cells.append(SweepCell(settings, score, int(labels.max()) + 1, 0.0, details={"leaves": float(len(tree.merges) + 1)}))
    return cells
