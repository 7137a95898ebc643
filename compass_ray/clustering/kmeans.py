"""k-means: clusters by nearest centre, no noise (COMPASS, appendix E). Baseline and fallback of the density method.

Every fitted row is in the cluster of its nearest centre, so assigning it again changes nothing. Moved centres (section 3.3.1)
apply only to new rows; fitted rows keep their fitted cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from compass_ray.clustering.backends import ClusteringBackend
from compass_ray.clustering.centroid_clusterer import (
    SILHOUETTE_ROWS,
    CentroidClusterer,
    Metric,
    assign_nearest,
    metrics_to_try,
    prepare_points,
    silhouette,
)
from compass_ray.clustering.centroids import spherical_means
from compass_ray.clustering.input_checks import check_new_rows
from compass_ray.clustering.pca import fit_pca
from compass_ray.clustering.protocol import FitResult, Float32, Int32, Int64, SweepCell, mark_best
from compass_ray.config import ClusterConfig
from compass_ray.core.centroids import update_centroids


@dataclass(frozen=True)
class KMeansClusterer(CentroidClusterer):
    """Fitted centres, each the mean of its nearest rows."""

    kind: ClassVar[str] = "kmeans"

    def with_updated_centroids(self, embeddings: Float32, labels: Int32, eta: float) -> KMeansClusterer:
        """The same clusters with centres moved by ``eta`` towards their new rows float32[n, d] (COMPASS, equation 2).

        The equation applies in the space in which rows are compared. Centroids keep length 1. Noise (-1) moves nothing.
        """
        rows = check_new_rows(embeddings, self.reduction.input_dimensions)
        centres = update_centroids(self.centres, prepare_points(self.reduction(rows), self.metric), labels, eta)
        centroids = prepare_points(update_centroids(self.centroids, rows, labels, eta), "cosine")
        return replace(self, centres=centres, centroids=centroids)

    def with_centroids(self, centres: Float32, centroids: Float32) -> KMeansClusterer:
        """The same clusters with the centres of `with_updated_centroids`."""
        return replace(self, centres=centres, centroids=centroids)


def fit(config: ClusterConfig, rows: Float32, sample: Int64, backend: ClusteringBackend, rng: np.random.Generator) -> FitResult:
    """Try every number of clusters and metric on the rows ``sample`` int64[m] of float32[n, d]; fit the best on all rows."""
    reduction = fit_pca(rows, config.pca_dims, whiten=config.whiten)
    reduced = reduction(rows)
    cells = mark_best(sweep(config, reduced[sample], backend, rng))
    best = next(cell.parameters for cell in cells if cell.chosen)
    points = prepare_points(reduced, str(best["metric"]))
    centres = backend.kmeans(points, int(best["n_clusters"]), config.n_init, int(rng.integers(2**31)))
    # A cluster without rows would have no centroid.
    centres = centres[np.unique(assign_nearest(points, centres))]
    labels = assign_nearest(points, centres)
    strength = np.ones(len(rows), np.float32)
    centroids = spherical_means(rows, labels, strength)
    clusterer = KMeansClusterer(labels, centroids, reduction, centres, str(best["metric"]))
    return FitResult(clusterer, strength, cells)


def sweep(config: ClusterConfig, points: Float32, backend: ClusteringBackend, rng: np.random.Generator) -> list[SweepCell]:
    """Silhouette of every number of clusters and metric on reduced points float32[m, r]."""
    scored = rng.permutation(len(points))[:SILHOUETTE_ROWS]
    seed = int(rng.integers(2**31))
    sizes = [k for k in config.n_clusters if k < len(points)]
    return [
        _make_sweep_cell(config, prepare_points(points, metric), metric, k, scored, seed, backend)
        for metric in metrics_to_try(config.metric)
        for k in sizes
    ]


def _make_sweep_cell(
    config: ClusterConfig, points: Float32, metric: Metric, k: int, scored: Int64, seed: int, backend: ClusteringBackend
) -> SweepCell:
    centres = backend.kmeans(points, k, config.n_init, seed)
    score = silhouette(points[scored], assign_nearest(points[scored], centres))
    return SweepCell({"n_clusters": k, "metric": metric}, score, k, 0.0)
