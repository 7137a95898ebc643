"""From observations to the entries of the monitor's log: what is taken in, where it belongs, and what is kept of it.

Key property: one prompt that cannot be placed never takes its batch with it, and no field that the retention setting does not
allow is in an entry. It writes nothing and remembers nothing.
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
from compass_ray.monitoring.cluster_assigner import Assignments
from compass_ray.monitoring.language_monitor import Event
from compass_ray.monitoring.observations import Observation, is_valid, sanitize
from compass_ray.monitoring.retention import RetentionPolicy

logger = logging.getLogger(__name__)

_DIGITS = 4
"""Of losses and distances, which are kept for every reply of a window of each version."""


class PromptAssignerProtocol(Protocol):
    """Finds the clusters of prompts; see `placing.Placer`."""

    def assign(self, prompts: Sequence[str], places: Sequence[ClusterSpace] | None = None) -> Assignments:
        """Cluster of each prompt, in order, at its place."""
        ...

    def assign_embeddings(self, embeddings: npt.NDArray[np.float32], places: Sequence[ClusterSpace] | None = None) -> Assignments:
        """The same of prompts that were embedded before."""
        ...

    def embed(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit rows of prompts."""
        ...

    def preload(self, place: ClusterSpace) -> None:
        """Hold a place ready, or raise why it cannot be."""
        ...


@dataclass(frozen=True)
class FilteredObservations:
    """What is new among observations, and how many were not."""

    fresh: list[Observation]
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
        """Leave out what is not sound, and what is ``known`` by its id or comes twice."""
        fresh: dict[str, Observation] = {}
        duplicates = rejected = 0
        for each in observations:
            if not is_valid(each, self.languages):
                rejected += 1
            elif each.id in known or each.id in fresh:
                duplicates += 1
            else:
                fresh[each.id] = each
        return FilteredObservations(list(fresh.values()), duplicates, rejected)

    def make_entries(self, observations: Sequence[Observation], places: Mapping[str, ClusterSpace]) -> list[Event]:
        """A log entry of each prompt that can be placed, in order; ``places`` says by language where."""
        if not observations:
            return []
        texts = [sanitize(each.prompt) for each in observations]
        try:
            placed = self.assigner.assign(texts, [places[each.language] for each in observations])
        except Exception as error:  # a prompt that no encoder takes must not be sent again for ever, and hold up all others
            if len(observations) == 1:  # the error's own words may be the prompt's
                logger.warning("the prompt of %s could not be placed: %s", observations[0].id, type(error).__name__)
                return []
            return [entry for each in observations for entry in self.make_entries([each], places)]
        return [self._entry(*each) for each in zip(observations, texts, iter_assignments(placed), strict=True)]

    def _entry(self, seen: Observation, text: str, place: Assignment) -> Event:
        return {
            "event": "prompt",
            "id": seen.id,
            "language": seen.language,
            **place.to_record(),
            "version": seen.version,
            "nll": round(seen.nll, _DIGITS) if seen.nll is not None and math.isfinite(seen.nll) else None,
            "time": min(seen.time, self.clock()),  # a clock ahead of this one would keep the prompt for longer
            **({} if seen.is_single_turn else {"alone": False}),
            **self.retention_policy.prompt_fields(seen.language, text, place.embedding, seen.key),
        }


@dataclass(frozen=True)
class Assignment:
    """Where one prompt lies, as it is written down."""

    cluster: int
    coarse: int
    distance: float
    embedding: npt.NDArray[np.float32]

    def to_record(self) -> dict[str, Any]:
        """What a log entry says of it."""
        return {"cluster": self.cluster, "coarse": self.coarse, "distance": self.distance}


def iter_assignments(placed: Assignments) -> Iterator[Assignment]:
    """Where each of some prompts lies."""
    for cluster, coarse, distance, embedding in zip(
        placed.cluster, placed.coarse, placed.distances, placed.embeddings, strict=True
    ):
        yield Assignment(int(cluster), int(coarse), round(float(distance), _DIGITS), embedding)
