"""Prompts to clusters without refitting: the encoder, the fitted clusterer and the coarse cut in one.

Key property: the same prompt always gets the same cluster that the cluster stage would have given it, at centroids that were not
moved since. COMPASS, section 3.3.2. It fits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.clustering.versions import ClusterSpace, load_space_clusterer, read_active
from compass_ray.config import ConfigError, RunConfig
from compass_ray.core.centroids import centroid_distances

_BATCH = 64
_MAX_SPACES = 64
"""Clusterings and sets of centroids that are held at once; more than languages have, mostly."""


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
class Assignments:
    """Where prompts lie: fine and coarse cluster int32[n] (-1 is noise), embeddings float32[n, d], and how far out.

    ``distances`` float32[n] as of `core.centroids.centroid_distances`.
    """

    cluster: npt.NDArray[np.int32]
    coarse: npt.NDArray[np.int32]
    embeddings: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, embeddings: npt.NDArray[np.float32]) -> Assignments:
        """Of embeddings float32[n, d] that are still to be placed."""
        n = len(embeddings)
        return cls(np.empty(n, np.int32), np.empty(n, np.int32), embeddings, np.empty(n, np.float32))

    def set_rows(self, rows: npt.NDArray[np.int64], found: Assignments) -> None:
        """Take over where some rows lie."""
        self.cluster[rows], self.coarse[rows], self.distances[rows] = found.cluster, found.coarse, found.distances


@dataclass(frozen=True)
class EmbeddingAssigner:
    """What places embeddings: a clusterer, and ``coarse`` int32[K + 1], the coarse cluster of each fine one and of noise."""

    assigner: Assigner
    coarse: npt.NDArray[np.int32]

    @classmethod
    def of(cls, assigner: Assigner, coarse: npt.NDArray[np.int32]) -> EmbeddingAssigner:
        """From the coarse cluster int32[K] of each fine one."""
        return cls(assigner, np.append(coarse, -1).astype(np.int32))

    def assign(self, embeddings: npt.NDArray[np.float32]) -> Assignments:
        """Where embeddings float32[n, d] lie."""
        fine = np.asarray(self.assigner.assign(embeddings), dtype=np.int32)
        distances = centroid_distances(embeddings, self.assigner.centroids, fine)
        return Assignments(cluster=fine, coarse=self.coarse[fine], embeddings=embeddings, distances=distances)


class PromptAssigner:
    """Embeds and assigns prompts, at one place unless others are named."""

    def __init__(self, embedder: Embedder, home: ClusterSpace, locate: Callable[[ClusterSpace], EmbeddingAssigner]) -> None:
        """Combine the parts; ``locate`` gives what places at a place, and is asked once for each that is in use."""
        self.embedder, self.default_space = embedder, home
        self._assigner_for = lru_cache(_MAX_SPACES)(locate)
        self.assigner = self._assigner_for(home).assigner

    def assign(self, prompts: Sequence[str], places: Sequence[ClusterSpace] | None = None) -> Assignments:
        """Cluster of each prompt, in order, each at its own of ``places``."""
        return self.assign_embeddings(self.embed(prompts), places)

    def assign_embeddings(self, embeddings: npt.NDArray[np.float32], places: Sequence[ClusterSpace] | None = None) -> Assignments:
        """The same of prompts that were embedded before, float32[n, d]."""
        at = [self.default_space] * len(embeddings) if places is None else list(places)
        found = Assignments.empty(embeddings)
        for place in dict.fromkeys(at):
            rows = np.array([i for i, each in enumerate(at) if each == place])
            found.set_rows(rows, self._assigner_for(place).assign(embeddings[rows]))
        return found

    def preload(self, place: ClusterSpace) -> None:
        """Hold ready what places at a place.

        Raises:
            ArtifactError, ModelError: it is missing or damaged.
        """
        self._assigner_for(place)

    def embed(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit rows float32[n, d] of prompts."""
        return self.embedder.encode(prompts, batch_size=_BATCH)


def load_prompt_assigner(run: RunDir, config: RunConfig, place: ClusterSpace | None = None) -> PromptAssigner:
    """The placer of a run's encoder, at the clusters that are in use unless another place is named.

    Raises:
        ConfigError: every language has clusters of its own, and traffic is watched in shared ones.
        ArtifactError: the run has no clusters yet.
    """
    if config.cluster.scope == "per_language":
        raise ConfigError(
            "cluster.scope is per_language, and traffic is watched in clusters that all languages share; set shared"
        )
    from compass_ray.models.encoder import Encoder

    run.clusters.require()
    return PromptAssigner(Encoder(config.embed), place or ClusterSpace(read_active(run).name), make_assigner_loader(run))


def make_assigner_loader(run: RunDir) -> Callable[[ClusterSpace], EmbeddingAssigner]:
    """What gives the clusterer of each place of a run; one clustering is in memory once, however many moved its centroids.

    It raises ArtifactError or ModelError where a clustering or centroids are missing or damaged.
    """
    fitted = lru_cache(2)(lambda name: load_space_clusterer(run, ClusterSpace(name)))

    def locate(place: ClusterSpace) -> EmbeddingAssigner:
        coarse = run.reclustering(place.clustering).read_array("coarse.npy")
        return EmbeddingAssigner.of(load_space_clusterer(run, place, fitted(place.clustering)), coarse)

    return locate
