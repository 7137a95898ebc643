"""Prompts to clusters without refitting: the encoder, the fitted clusterer and the coarse cut in one.

Key property: the same prompt always gets the same cluster that the cluster stage would have given it.
COMPASS, section 3.3.2. It fits nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.core.centroids import centroid_distances

_BATCH = 64


class Embedder(Protocol):
    """Turns prompts into unit rows float32[n, d]."""

    def encode(self, prompts: Sequence[str], *, batch_size: int) -> npt.NDArray[np.float32]:
        """Embed the prompts, in their order."""
        ...


class Assigner(Protocol):
    """Turns embeddings float32[n, d] into cluster labels int32[n], -1 for noise."""

    @property
    def centroids(self) -> npt.NDArray[np.float32]:
        """Mean of each cluster, float32[K, d]."""

    def assign(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Label each row."""
        ...


@dataclass(frozen=True)
class Placed:
    """Where prompts lie: fine and coarse cluster int32[n] (-1 is noise), embeddings float32[n, d], and how far out.

    ``distances`` float32[n] as of `core.centroids.centroid_distances`.
    """

    cluster: npt.NDArray[np.int32]
    coarse: npt.NDArray[np.int32]
    embeddings: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]


class Placer:
    """Embeds and assigns prompts."""

    def __init__(self, embedder: Embedder, assigner: Assigner, coarse: npt.NDArray[np.int32]) -> None:
        """Combine the parts; ``coarse`` int32[K] gives the coarse cluster of each fine one."""
        self.embedder = embedder
        self.assigner = assigner
        self.coarse = np.append(coarse, -1).astype(np.int32)

    def place(self, prompts: Sequence[str]) -> Placed:
        """Cluster of each prompt, in order."""
        embeddings = self.embedder.encode(prompts, batch_size=_BATCH)
        fine = np.asarray(self.assigner.assign(embeddings), dtype=np.int32)
        distances = centroid_distances(embeddings, self.assigner.centroids, fine)
        return Placed(cluster=fine, coarse=self.coarse[fine], embeddings=embeddings, distances=distances)


def load_placer(run: RunDir, config: RunConfig) -> Placer:
    """The placer of a run's encoder and clusters.

    Raises:
        ConfigError: every language has clusters of its own, and traffic is watched in shared ones.
        ArtifactError: the run has no clusters yet.
    """
    if config.cluster.scope == "per_language":
        raise ConfigError(
            "cluster.scope is per_language, and traffic is watched in clusters that all languages share; set shared"
        )
    from compass_ray.models.clusterers import load_clusterer
    from compass_ray.models.encoder import Encoder

    run.clusters.require()
    with run.clusters.local() as folder:
        clusterer = load_clusterer(folder)
    return Placer(Encoder(config.embed), clusterer, run.clusters.read_array("coarse.npy"))
