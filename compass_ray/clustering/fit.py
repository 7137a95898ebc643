"""Cluster embeddings: sweep the settings, choose the best, fit once (COMPASS, section 3.2.1 and appendix E).

Deterministic for a seed and a backend. The sweep runs on a bounded seeded sample; Butina's runs on complete cells of the
pool. If the pool fits into the sample, the tree of the best setting is the final one, so nothing is fitted twice. Pool rows
outside the tree are assigned like new ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compass_ray.clustering import butina, hdbscan, kmeans, ward
from compass_ray.clustering.backends import ClusteringBackend, CpuBackend, choose_backend
from compass_ray.clustering.centroids import coarse_cut, spherical_means
from compass_ray.clustering.input_checks import check_embeddings, check_samples, check_strata
from compass_ray.clustering.pca import fit_pca
from compass_ray.clustering.protocol import FitResult, FittedClusters, Float32
from compass_ray.clustering.stratified_sample import sample_stratified
from compass_ray.config import ClusterConfig
from compass_ray.models.errors import ModelError


def fit_clusters(config: ClusterConfig, embeddings: Float32, *, seed: int, strata: Sequence[str] | None = None) -> FittedClusters:
    """Cluster unit rows float32[n, d]. ``strata`` is each row's language, so that the sweep's sample contains all languages.

    Raises:
        ModelError: the rows cannot be clustered, the sample is too small, the backend is missing, or every row is noise.
    """
    # Ward and Taylor-Butina have no GPU implementation.
    backend = choose_backend(config.backend) if config.method in ("hdbscan", "kmeans") else CpuBackend()
    rows = check_embeddings(embeddings, _min_rows(config), config.method)
    check_samples(config, _min_rows(config), full_tree=backend.name == "gpu")
    check_strata(strata, len(rows))
    rng = np.random.default_rng(seed)
    result = _fit_by_method(config, rows, strata, backend, rng)
    clusterer = result.clusterer
    coarse = coarse_cut(clusterer.centroids, config.monitor_clusters)
    return FittedClusters(clusterer, clusterer.labels, result.strength, coarse, result.sweep, backend.name)


def _min_rows(config: ClusterConfig) -> int:
    """Minimum number of rows for the sweep."""
    if config.method == "hdbscan":
        return hdbscan.min_sweep_rows(config)
    return 2 if config.method == "butina" else min(config.n_clusters) + 1


def _fit_by_method(
    config: ClusterConfig, rows: Float32, strata: Sequence[str] | None, backend: ClusteringBackend, rng: np.random.Generator
) -> FitResult:
    if config.method == "hdbscan":
        return _fit_hdbscan(config, rows, strata, backend, rng)
    if config.method == "butina":
        return butina.fit(config, rows, rng)
    sample = sample_stratified(len(rows), config.sweep_rows, rng, strata)
    if config.method == "kmeans":
        return kmeans.fit(config, rows, sample, backend, rng)
    return ward.fit(config, rows, sample, rng)


def _fit_hdbscan(
    config: ClusterConfig, rows: Float32, strata: Sequence[str] | None, backend: ClusteringBackend, rng: np.random.Generator
) -> FitResult:
    in_tree = sample_stratified(len(rows), config.tree_rows if backend.name == "cpu" else len(rows), rng, strata)
    sample = in_tree[
        sample_stratified(len(in_tree), config.sweep_rows, rng, None if strata is None else [strata[i] for i in in_tree])
    ]
    reduction = fit_pca(rows[in_tree], config.pca_dims, whiten=config.whiten)
    cells = hdbscan.sweep(config, reduction(rows[sample]), backend)
    best = hdbscan.select_best(cells)
    points = reduction(rows[in_tree])
    final = best if len(sample) == len(in_tree) else hdbscan.fit_tree(best, points, backend)
    if final.tree.n_clusters == 0:
        raise ModelError(
            f"HDBSCAN assigns all {len(rows)} rows to noise with every setting; set cluster.method=kmeans, or lower "
            f"cluster.min_cluster_size (it is {list(config.min_cluster_size)})"
        )
    labels, strength = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    labels[in_tree] = final.tree.labels
    strength[in_tree] = final.tree.strength(final.tree.labels, final.tree.density)
    rest = np.setdiff1d(np.arange(len(rows)), in_tree)
    predictor = hdbscan.ApproximatePredictor(points, final.core, final.min_samples, final.tree)
    labels[rest], strength[rest] = predictor.predict(reduction(rows[rest]))
    centroids = spherical_means(rows, labels, strength)
    clusterer = hdbscan.HdbscanClusterer(labels, centroids, reduction, points, final.core, final.min_samples, final.tree)
    return FitResult(clusterer, strength, tuple(cell.to_sweep_cell(cell is best) for cell in cells))
