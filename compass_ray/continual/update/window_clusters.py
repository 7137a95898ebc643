"""Assign a window to the active clustering at the parent version's centroids, and move the centroids to the window.

A window that was recorded in another cluster space is re-assigned from its retained texts or embeddings; its old cluster
ids are never used. COMPASS, section 3.3.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir, Writer
from compass_ray.clustering import Clusterer
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.clustering.versions import CentroidUpdate, load_space_clusterer, resolve_space
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.update.spec import UpdateSpec
from compass_ray.continual.update.windows import Window
from compass_ray.monitoring.retained_traffic import Encode, embed_rows
from compass_ray.records.updates import WindowRecord

_MIN_RETAINED_SHARE = 0.5
"""Minimum share of a window's prompts that must be retained to re-assign the window or to move centroids."""


@dataclass(frozen=True)
class ClusteredWindow:
    """The clusters int64[n] of a window in a clustering, and the centroids of the new version with a note on them."""

    clustering: str
    labels: npt.NDArray[np.int64]
    centroid_update: CentroidUpdate | None = None
    centroids_note: str = "as fitted"
    vectors: npt.NDArray[np.float32] | None = None
    """Embeddings (m, d) of the prompts that are retained, m at most n; only if the selection needs them."""

    def store(self, writer: Writer, window: Window) -> None:
        """Write the window's record and the new version's centroids into the update's selection."""
        record = WindowRecord(file=window.file, prompts=len(window), space_id=window.space_id, centroids=self.centroids_note)
        record.write(writer)
        if self.centroid_update:
            self.centroid_update.write(writer)


def cluster_window(
    config: RunConfig, run: RunDir, window: Window, update: UpdateSpec, clusters: str, encode: Encode
) -> ClusteredWindow:
    """Assign a window to a clustering at the parent version's centroids.

    Raises:
        ConfigError: it was recorded in another cluster space, and too little of it is retained to re-assign it.
    """
    space, eta = resolve_space(run, clusters, update.language, update.parent), config.update.centroid_step
    is_current = window.space_id == space.space_id
    if is_current and not eta and space.version is None:
        return ClusteredWindow(clusters, np.asarray(window.clusters, np.int64))
    clusterer, vectors = load_space_clusterer(run, space), _retained_vectors(window, encode)
    enough = len(vectors) >= max(1, _MIN_RETAINED_SHARE * len(window))
    if not is_current and not enough:
        raise ConfigError(
            f"The window of {update.language} was recorded with clustering {window.space_id}, but {space.space_id} is active. "
            f"Only {len(vectors)} of its {len(window)} prompts can be re-assigned (drift.retention keeps too little). Wait for "
            f"a new window, or pass --prompts FILE."
        )
    labels = np.asarray(window.clusters if is_current else clusterer.assign(vectors), np.int64)
    if (labels < 0).all():
        raise ConfigError(
            f"All {len(labels)} prompts of the window of {update.language} are noise in clustering {clusters}, so no rows can be "
            f"selected. Re-cluster: compass-ray recluster {run.shown_uri}"
        )
    return ClusteredWindow(clusters, labels, *_centroids(clusterer, labels, vectors if enough else None, eta))


def with_vectors(found: ClusteredWindow, window: Window, encode: Encode) -> ClusteredWindow:
    """The clustered window with the embeddings of its retained prompts, if there are any."""
    vectors = _retained_vectors(window, encode)
    return replace(found, vectors=vectors) if len(vectors) else found


def _centroids(
    clusterer: Clusterer, labels: npt.NDArray[np.int64], window: npt.NDArray[np.float32] | None, eta: float
) -> tuple[CentroidUpdate | None, str]:
    if not isinstance(clusterer, KMeansClusterer):
        return None, "as fitted: the active clustering is not k-means"
    if not eta:
        return CentroidUpdate.unchanged(clusterer, labels), "those of the parent version"
    if window is None:
        note = "those of the parent version: too little of the window is retained to move them"
        return CentroidUpdate.unchanged(clusterer, labels), note
    return CentroidUpdate.from_window(clusterer, window, eta), f"moved by {eta:g} to {len(window)} prompts"


def _retained_vectors(window: Window, encode: Encode) -> npt.NDArray[np.float32]:
    """Vectors of the prompts with a retained text or embedding."""
    return np.zeros((0, 0), np.float32) if window.prompts is None else embed_rows(window.prompts, encode).vectors
