"""k-means: clusters by nearest centre, no noise (COMPASS, appendix E). Bottom line and fallback of the density method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compass_ray.config import ClusterConfig
from compass_ray.models.clusterers.backends import Backend
from compass_ray.models.clusterers.protocol import Float32, Int32, SweepCell
from compass_ray.models.clusterers.reduction import Reduction
from compass_ray.models.clusterers.storage import save_arrays

_SILHOUETTE_ROWS = 4_000
_BLOCK = 8192


@dataclass(frozen=True)
class KMeansClusterer:
    """Fitted centres float32[K, r] in the reduced space; ``metric`` cosine compares unit rows there."""

    kind: ClassVar[str] = "kmeans"
    labels: Int32
    centroids: Float32
    reduction: Reduction
    centres: Float32
    metric: str

    def assign(self, embeddings: Float32) -> Int32:
        """int32[n] nearest centre of each row float32[n, d]."""
        return nearest(prepared(self.reduction(embeddings), self.metric), self.centres)

    def save(self, folder: Path) -> None:
        """Write it into ``folder``."""
        own = {"labels": self.labels, "centroids": self.centroids, "centres": self.centres}
        save_arrays(folder, self.kind, {"metric": self.metric}, own | self.reduction.arrays())

    @classmethod
    def of(cls, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> KMeansClusterer:
        """From what `save` stored."""
        own = {name: arrays[name] for name in ("labels", "centroids", "centres")}
        return cls(reduction=Reduction.of(arrays), metric=settings["metric"], **own)


def prepared(points: Float32, metric: str) -> Float32:
    """Points as they are compared: unit rows for cosine."""
    if metric != "cosine":
        return points
    length = np.linalg.norm(points, axis=1, keepdims=True)
    unit: Float32 = points / np.maximum(length, np.float32(1e-12))
    return unit


def nearest(points: Float32, centres: Float32) -> Int32:
    """int32[n] index of the nearest centre, by blocks."""
    labels = np.empty(len(points), np.int32)
    half = 0.5 * np.square(centres).sum(1)
    for start in range(0, len(points), _BLOCK):
        part = slice(start, start + _BLOCK)
        labels[part] = (points[part] @ centres.T - half).argmax(1)
    return labels


def sweep(config: ClusterConfig, points: Float32, backend: Backend, rng: np.random.Generator) -> tuple[SweepCell, ...]:
    """Silhouette of every number of clusters on points float32[m, r]; the best one is marked."""
    sample = rng.permutation(len(points))[:_SILHOUETTE_ROWS]
    seed = int(rng.integers(2**31))
    sizes = [k for k in config.n_clusters if k < len(points)]
    found = [(k, _silhouette(config, points, k, sample, seed, backend)) for k in sizes]
    chosen = max(found, key=lambda pair: pair[1])[0]
    settings: dict[int, dict[str, int | float | str]] = {k: {"n_clusters": k, "metric": config.metric} for k in sizes}
    return tuple(SweepCell(settings[k], value, k, 0.0, k == chosen) for k, value in found)


def _silhouette(config: ClusterConfig, points: Float32, k: int, sample: np.ndarray, seed: int, backend: Backend) -> float:
    from sklearn.metrics import silhouette_score

    centres = backend.kmeans(points, k, config.n_init, seed)
    labels = nearest(points[sample], centres)
    if len(np.unique(labels)) < 2 or len(np.unique(labels)) >= len(sample):
        return -1.0
    return float(silhouette_score(points[sample], labels))
