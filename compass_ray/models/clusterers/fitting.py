"""Sweep, choose, fit once: from embeddings to clusters (COMPASS, section 3.2.1 and appendix E).

Key property: deterministic for a seed and a backend. The sweep runs on a bounded seeded sample; where the pool fits into
that, the winner's tree is the final one and nothing is fitted twice. Pool rows beyond the tree are placed like new ones.
"""

from __future__ import annotations

import numpy as np

from compass_ray.config import ClusterConfig
from compass_ray.models.clusterers import density, kmeans
from compass_ray.models.clusterers.backends import Backend, choose_backend
from compass_ray.models.clusterers.centroids import coarse_cut, spherical_means
from compass_ray.models.clusterers.checks import check_embeddings
from compass_ray.models.clusterers.protocol import FittedClusters, Float32, Int64
from compass_ray.models.clusterers.reduction import fit_reduction
from compass_ray.models.errors import ModelError


def fit_clusters(config: ClusterConfig, embeddings: Float32, *, seed: int) -> FittedClusters:
    """Cluster unit rows float32[n, d].

    Raises:
        ModelError: rows that cannot be clustered, a backend that is not there, or nothing but noise.
    """
    backend = choose_backend(config.backend)
    rng = np.random.default_rng(seed)
    if config.method == "kmeans":
        return _by_centres(config, check_embeddings(embeddings, min(config.n_clusters) + 1), backend, rng)
    return _by_density(config, check_embeddings(embeddings, density.check_settings(config)), backend, rng)


def _by_density(config: ClusterConfig, rows: Float32, backend: Backend, rng: np.random.Generator) -> FittedClusters:
    in_tree = _sample(len(rows), config.tree_rows if backend.name == "cpu" else len(rows), rng)
    tried = in_tree[_sample(len(in_tree), config.sweep_rows, rng)]
    reduction = fit_reduction(rows[in_tree], config.reduce)
    cells = density.sweep(config, reduction(rows[tried]), backend)
    winner = density.best(cells)
    points = reduction(rows[in_tree])
    final = winner if len(tried) == len(in_tree) else density.fit_tree(winner, points, backend)
    if final.tree.n_clusters == 0:
        raise ModelError(
            f"HDBSCAN takes all {len(rows)} rows for noise at every setting tried; set cluster.method=kmeans, or lower "
            f"cluster.min_cluster_size (it is {list(config.min_cluster_size)})"
        )
    labels, strength = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    labels[in_tree] = final.tree.labels
    strength[in_tree] = final.tree.strength(final.tree.labels, final.tree.density)
    rest = np.setdiff1d(np.arange(len(rows)), in_tree)
    placement = density.Placement(points, final.core, final.min_samples, final.tree)
    labels[rest], strength[rest] = placement.place(reduction(rows[rest]))
    centroids = spherical_means(rows, labels, strength)
    clusterer = density.DensityClusterer(labels, centroids, reduction, points, final.core, final.min_samples, final.tree)
    table = tuple(cell.row(cell is winner) for cell in cells)
    return FittedClusters(clusterer, labels, strength, coarse_cut(centroids, config.coarse), table, backend.name)


def _by_centres(config: ClusterConfig, rows: Float32, backend: Backend, rng: np.random.Generator) -> FittedClusters:
    reduction = fit_reduction(rows, config.reduce)
    points = kmeans.prepared(reduction(rows), config.metric)
    tried = points[_sample(len(rows), config.sweep_rows, rng)]
    cells = kmeans.sweep(config, tried, backend, rng)
    chosen = next(cell for cell in cells if cell.chosen)
    centres = backend.kmeans(points, chosen.n_clusters, config.n_init, int(rng.integers(2**31)))
    # Clusters that end up without a row would have no centroid.
    centres = centres[np.unique(kmeans.nearest(points, centres))]
    labels = kmeans.nearest(points, centres)
    strength = np.ones(len(rows), np.float32)
    centroids = spherical_means(rows, labels, strength)
    clusterer = kmeans.KMeansClusterer(labels, centroids, reduction, centres, config.metric)
    return FittedClusters(clusterer, labels, strength, coarse_cut(centroids, config.coarse), cells, backend.name)


def _sample(n: int, at_most: int, rng: np.random.Generator) -> Int64:
    """Ascending indices of at most ``at_most`` of n rows."""
    return np.arange(n) if n <= at_most else np.sort(rng.permutation(n)[:at_most])
