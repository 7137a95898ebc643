"""Turn observations into log entries: validate, assign clusters, and apply the retention setting.

A prompt that cannot be assigned does not affect the rest of its batch. An entry contains no field that the retention
setting forbids. Stateless; writes nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.clustering.versions import ClusterSpace
from compass_ray.monitoring.client_share import PromptEntry, hash_words
from compass_ray.monitoring.cluster_assigner import Assignments
from compass_ray.monitoring.observations import Observation, is_valid, sanitize
from compass_ray.monitoring.retention import RetentionPolicy

logger = logging.getLogger(__name__)

_DIGITS = 4
"""Decimal places of stored losses and distances."""


class PromptAssignerProtocol(Protocol):
    """Assigns prompts to clusters; see `cluster_assigner.PromptAssigner`."""

    def assign(self, prompts: Sequence[str], spaces: Sequence[ClusterSpace] | None = None) -> Assignments:
        """Clusters of prompts in order, each in its own of ``spaces``."""
        ...

    def assign_embeddings(self, embeddings: npt.NDArray[np.float32], spaces: Sequence[ClusterSpace] | None = None) -> Assignments:
        """Clusters of embedded prompts."""
        ...

    def embed(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit rows of prompts."""
        ...

    def preload(self, space: ClusterSpace) -> None:
        """Load a cluster space, or raise if it cannot be loaded."""
        ...


@dataclass(frozen=True)
class FilteredObservations:
    """The new observations, and the number of the others."""

    new: list[Observation]
    duplicates: int
    rejected: int


@dataclass(frozen=True)
class Ingest:
    """Makes log entries of answered prompts."""

    languages: Sequence[str]
    retention_policy: RetentionPolicy
    assigner: PromptAssignerProtocol
    clock: Callable[[], float]

    def filter(self, observations: Sequence[Observation], known: Container[str]) -> FilteredObservations:
        """Drop invalid observations, and those with an id that is ``known`` or repeated."""
        new: dict[str, Observation] = {}
        duplicates = rejected = 0
        for each in observations:
            if not is_valid(each, self.languages):
                rejected += 1
            elif each.id in known or each.id in new:
                duplicates += 1
            else:
                new[each.id] = each
        return FilteredObservations(list(new.values()), duplicates, rejected)

    def make_entries(self, observations: Sequence[Observation], spaces: Mapping[str, ClusterSpace]) -> list[PromptEntry]:
        """Log entries of the prompts that can be assigned, in order; ``spaces`` are the cluster spaces by language."""
        if not observations:
            return []
        texts = [sanitize(each.prompt) for each in observations]
        try:
            assigned = self.assigner.assign(texts, [spaces[each.language] for each in observations])
        except Exception as error:  # a prompt that the encoder rejects must not be retried forever and block the others
            if len(observations) == 1:  # no error message: it may contain the prompt
                logger.warning("monitor: prompt of reply %s not assigned: %s", observations[0].id, type(error).__name__)
                return []
            return [entry for each in observations for entry in self.make_entries([each], spaces)]
        return [self._entry(*each) for each in zip(observations, texts, iter_assignments(assigned), strict=True)]

    def _entry(self, observation: Observation, text: str, assignment: Assignment) -> PromptEntry:
        client, words = observation.client, hash_words(text)
        event = {
            "event": "prompt",
            "id": observation.id,
            "language": observation.language,
            **assignment.to_record(),
            "version": observation.version,
            "nll": _rounded_loss(observation.nll),
            "time": min(observation.time, self.clock()),  # a time in the future would extend the prompt's storage
            **({} if observation.is_single_turn else {"alone": False}),
            **self.retention_policy.prompt_fields(observation.language, text, assignment.embedding, observation.key),
            **self.retention_policy.client_fields(observation.id, client, words),
        }
        return PromptEntry(event, client, words)


@dataclass(frozen=True)
class Assignment:
    """Clusters, distance and embedding of one prompt."""

    cluster: int
    coarse: int
    distance: float
    embedding: npt.NDArray[np.float32]

    def to_record(self) -> dict[str, Any]:
        """The fields of a log entry."""
        return {"cluster": self.cluster, "coarse": self.coarse, "distance": self.distance}


def iter_assignments(assigned: Assignments) -> Iterator[Assignment]:
    """The assignment of each prompt."""
    columns = (assigned.cluster, assigned.coarse, assigned.distances, assigned.embeddings)
    for cluster, coarse, distance, embedding in zip(*columns, strict=True):
        yield Assignment(int(cluster), int(coarse), round(float(distance), _DIGITS), embedding)


def _rounded_loss(nll: float | None) -> float | None:
    return round(nll, _DIGITS) if nll is not None and math.isfinite(nll) else None
