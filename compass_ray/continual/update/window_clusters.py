"""A window in the clusters that are watched, at the centroids of the version updated from; and what it makes of these centroids.

Key property: a window that was collected in other clusters, or at other centroids, is placed anew by what is kept of it, never
counted as it was. COMPASS, section 3.3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir, Writer
from compass_ray.clustering import Clusterer
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.clustering.versions import CentroidUpdate, load_space_clusterer, resolve_space
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.update.spec import UpdateSpec
from compass_ray.continual.update.windows import Window
from compass_ray.monitoring.references import WINDOW_FILE
from compass_ray.monitoring.retained_traffic import Encode, embed_rows

_MIN_RETAINED_SHARE = 0.5
"""Share of a window's prompts that must be left to place it anew, or to move centroids to it."""


@dataclass(frozen=True)
class ClusteredWindow:
    """A window's clusters int64[n] in the clustering named, the centroids of the new version, and what became of them."""

    clustering: str
    labels: npt.NDArray[np.int64]
    centroid_update: CentroidUpdate | None = None
    centroids_note: str = "as fitted"

    def store(self, writer: Writer, window: Window) -> None:
        """Write into the update's selection where its window is and was found, and the centroids of the new version."""
        told = {"file": window.file, "prompts": len(window), "place": window.space_id, "centroids": self.centroids_note}
        writer.write_json(WINDOW_FILE, told)
        if self.centroid_update:
            self.centroid_update.write(writer)


def cluster_window(
    config: RunConfig, run: RunDir, window: Window, update: UpdateSpec, clusters: str, encode: Encode
) -> ClusteredWindow:
    """The window where the version updated from would have it in a clustering.

    Raises:
        ConfigError: it was collected elsewhere, and too little of it is kept to place it anew.
    """
    place, eta = resolve_space(run, clusters, update.language, update.parent), config.update.centroid_step
    stays = window.space_id == place.space_id
    if stays and not eta and place.version is None:
        return ClusteredWindow(clusters, np.asarray(window.clusters, np.int64))
    clusterer, left = load_space_clusterer(run, place), _retained_vectors(window, encode)
    enough = len(left) >= max(1, _MIN_RETAINED_SHARE * len(window))
    if not stays and not enough:
        raise ConfigError(
            f"the window of {update.language} was recorded with clustering {window.space_id}, but {place.space_id} is active; "
            f"now, and of {len(left)} of its {len(window)} prompts enough is kept to place them anew; collect another one, or "
            f"give prompts with --prompts"
        )
    labels = np.asarray(window.clusters if stays else clusterer.assign(left), np.int64)
    if (labels < 0).all():
        raise ConfigError(
            f"all {len(labels)} prompts of the window of {update.language} are noise to the clusters {clusters}, so nothing "
            f"would be selected; cluster again: compass-ray recluster {run.uri}"
        )
    return ClusteredWindow(clusters, labels, *_centroids(clusterer, labels, left if enough else None, eta))


def _centroids(
    clusterer: Clusterer, labels: npt.NDArray[np.int64], window: npt.NDArray[np.float32] | None, eta: float
) -> tuple[CentroidUpdate | None, str]:
    if not isinstance(clusterer, KMeansClusterer):
        return None, "as fitted, as no clusters of k-means are in use"
    if not eta:
        return CentroidUpdate.unchanged(clusterer, labels), "those of the version before"
    if window is None:
        return CentroidUpdate.unchanged(
            clusterer, labels
        ), "those of the version before, as too little of the window is kept to move them"
    return CentroidUpdate.from_window(clusterer, window, eta), f"moved by {eta:g} to {len(window)} prompts"


def _retained_vectors(window: Window, encode: Encode) -> npt.NDArray[np.float32]:
    """Vectors of the prompts of which a text or an embedding is kept."""
    return np.zeros((0, 0), np.float32) if window.prompts is None else embed_rows(window.prompts, encode).vectors
