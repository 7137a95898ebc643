"""Base of clusterers defined by centres (k-means, Ward): nearest centre, silhouette, and storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from compass_ray.clustering.input_checks import check_new_rows
from compass_ray.clustering.pca import PcaReduction
from compass_ray.clustering.protocol import Float32, Int32
from compass_ray.clustering.serialization import read_setting, save_arrays

Metric = Literal["euclidean", "cosine"]

SILHOUETTE_ROWS = 4_000
_BLOCK = 8192
_BLOCK_CELLS = 4_000_000
_SILHOUETTE_MIB = 64


@dataclass(frozen=True)
class CentroidClusterer:
    """Centres float32[K, r] in the reduced space; metric ``cosine`` compares unit rows there."""

    kind: ClassVar[str]
    labels: Int32
    centroids: Float32
    reduction: PcaReduction
    centres: Float32
    metric: str

    def assign(self, embeddings: Float32) -> Int32:
        """int32[n] nearest centre of each row float32[n, d]; see `Clusterer`."""
        rows = check_new_rows(embeddings, self.reduction.input_dimensions)
        return assign_nearest(prepare_points(self.reduction(rows), self.metric), self.centres)

    def save(self, folder: Path) -> None:
        """Write the clusterer into ``folder``."""
        fields = {"labels": self.labels, "centroids": self.centroids, "centres": self.centres}
        save_arrays(folder, self.kind, {"metric": self.metric}, fields | self.reduction.to_arrays())

    @classmethod
    def from_arrays(cls, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Create it from what `save` stored."""
        fields = {name: arrays[name] for name in ("labels", "centroids", "centres")}
        metric = read_setting(settings, "metric", str)
        if metric not in get_args(Metric):
            raise ValueError(f"a usable metric (it is {metric!r})")
        return cls(reduction=PcaReduction.from_arrays(arrays), metric=metric, **fields)


def metrics_to_try(setting: Literal["euclidean", "cosine", "both"]) -> tuple[Metric, ...]:
    """Metrics of the sweep.

    >>> metrics_to_try("both")
    ('euclidean', 'cosine')
    """
    return ("euclidean", "cosine") if setting == "both" else (setting,)


def prepare_points(points: Float32, metric: str) -> Float32:
    """Points float32[n, r] in the form that is compared: unit rows for cosine."""
    if metric != "cosine":
        return points
    length = np.linalg.norm(points, axis=1, keepdims=True)
    unit: Float32 = points / np.maximum(length, np.float32(1e-12))
    return unit


def assign_nearest(points: Float32, centres: Float32) -> Int32:
    """int32[n] index of the nearest of ``centres`` float32[K, r] for each of ``points`` float32[n, r], in blocks."""
    labels = np.empty(len(points), np.int32)
    half = 0.5 * np.square(centres).sum(1)
    block = max(1, min(_BLOCK, _BLOCK_CELLS // len(centres)))
    for start in range(0, len(points), block):
        part = slice(start, start + block)
        labels[part] = (points[part] @ centres.T - half).argmax(1)
    return labels


def silhouette(points: Float32, labels: Int32) -> float:
    """Mean silhouette in [-1, 1] of ``points`` float32[m, r]; -1 for fewer than two clusters, or for m of them.

    Blocks limit the distances in memory to 64 MiB.
    """
    from sklearn import config_context
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(labels)) < len(points):
        return -1.0
    with config_context(working_memory=_SILHOUETTE_MIB):
        return float(silhouette_score(points, labels))
