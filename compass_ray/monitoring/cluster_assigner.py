"""Assign prompts to clusters without refitting: encoder, fitted clusterer and coarse clusters together.

A prompt gets the cluster that the cluster stage would give it, unless centroids were moved since. COMPASS, section 3.3.2.
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
"""Cached cluster spaces; usually more than a run has languages."""


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
    """Fine and coarse clusters int32[n] of prompts (-1 is noise), embeddings float32[n, d] and ``distances`` float32[n].

    The distances are those of `core.centroids.centroid_distances`.
    """

    cluster: npt.NDArray[np.int32]
    coarse: npt.NDArray[np.int32]
    embeddings: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, embeddings: npt.NDArray[np.float32]) -> Assignments:
        """Uninitialized assignments for embeddings float32[n, d]."""
        n = len(embeddings)
        return cls(np.empty(n, np.int32), np.empty(n, np.int32), embeddings, np.empty(n, np.float32))

    def set_rows(self, rows: npt.NDArray[np.int64], source: Assignments) -> None:
        """Copy the clusters and distances of some rows from ``source``."""
        self.cluster[rows], self.coarse[rows], self.distances[rows] = source.cluster, source.coarse, source.distances


@dataclass(frozen=True)
class EmbeddingAssigner:
    """Assigns embeddings: a clusterer, and ``coarse`` int32[K + 1], the coarse cluster of each fine cluster and of noise."""

    assigner: Assigner
    coarse: npt.NDArray[np.int32]

    @classmethod
    def of(cls, assigner: Assigner, coarse: npt.NDArray[np.int32]) -> EmbeddingAssigner:
        """Build one from the coarse cluster int32[K] of each fine cluster."""
        return cls(assigner, np.append(coarse, -1).astype(np.int32))

    def assign(self, embeddings: npt.NDArray[np.float32]) -> Assignments:
        """Assign embeddings float32[n, d]."""
        fine = np.asarray(self.assigner.assign(embeddings), dtype=np.int32)
        distances = centroid_distances(embeddings, self.assigner.centroids, fine)
        return Assignments(cluster=fine, coarse=self.coarse[fine], embeddings=embeddings, distances=distances)


class PromptAssigner:
    """Embeds and assigns prompts, in the default cluster space or in given ones."""

    def __init__(
        self, embedder: Embedder, default_space: ClusterSpace, load: Callable[[ClusterSpace], EmbeddingAssigner]
    ) -> None:
        """Combine the parts; ``load`` returns the assigner of a cluster space, and its results are cached."""
        self.embedder, self.default_space = embedder, default_space
        self._assigner_for = lru_cache(_MAX_SPACES)(load)
        self.assigner = self._assigner_for(default_space).assigner

    def assign(self, prompts: Sequence[str], spaces: Sequence[ClusterSpace] | None = None) -> Assignments:
        """Clusters of prompts in order, each in its own of ``spaces``."""
        return self.assign_embeddings(self.embed(prompts), spaces)

    def assign_embeddings(self, embeddings: npt.NDArray[np.float32], spaces: Sequence[ClusterSpace] | None = None) -> Assignments:
        """Clusters of embedded prompts float32[n, d]."""
        by_row = [self.default_space] * len(embeddings) if spaces is None else list(spaces)
        assignments = Assignments.empty(embeddings)
        for space in dict.fromkeys(by_row):
            rows = np.array([i for i, each in enumerate(by_row) if each == space])
            assignments.set_rows(rows, self._assigner_for(space).assign(embeddings[rows]))
        return assignments

    def preload(self, space: ClusterSpace) -> None:
        """Load the assigner of a cluster space into the cache.

        Raises:
            ArtifactError, ModelError: it is missing or damaged.
        """
        self._assigner_for(space)

    def embed(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed prompts as unit rows float32[n, d]."""
        return self.embedder.encode(prompts, batch_size=_BATCH)


def load_prompt_assigner(run: RunDir, config: RunConfig, space: ClusterSpace | None = None) -> PromptAssigner:
    """Load the assigner of a run, by default for the active clustering.

    Raises:
        ConfigError: each language has its own clusters, but monitoring needs shared ones.
        ArtifactError: the run has no clusters yet.
    """
    if config.cluster.scope == "per_language":
        raise ConfigError("cluster.scope is per_language, but monitoring needs clusters that all languages share; set shared")
    from compass_ray.models.encoder import Encoder

    run.clusters.require()
    return PromptAssigner(Encoder(config.embed), space or ClusterSpace(read_active(run).name), make_assigner_loader(run))


def make_assigner_loader(run: RunDir) -> Callable[[ClusterSpace], EmbeddingAssigner]:
    """A function that loads the assigner of a cluster space. Spaces of one clustering share its fitted model in memory.

    The function raises ArtifactError or ModelError if a clustering or centroids are missing or damaged.
    """
    fitted = lru_cache(2)(lambda name: load_space_clusterer(run, ClusterSpace(name)))

    def load(space: ClusterSpace) -> EmbeddingAssigner:
        coarse = run.reclustering(space.clustering).read_array("coarse.npy")
        return EmbeddingAssigner.of(load_space_clusterer(run, space, fitted(space.clustering)), coarse)

    return load
