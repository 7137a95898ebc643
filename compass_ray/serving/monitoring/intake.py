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

from compass_ray.serving.monitoring.observations import Observation, clean, sound
from compass_ray.serving.monitoring.placing import Placed
from compass_ray.serving.monitoring.retention import Keeper
from compass_ray.serving.monitoring.windows import Event
from compass_ray.watched_clusters import Place

logger = logging.getLogger(__name__)

_DIGITS = 4
"""Of losses and distances, which are kept for every reply of a window of each version."""


class PromptPlacer(Protocol):
    """Finds the clusters of prompts; see `placing.Placer`."""

    def place(self, prompts: Sequence[str], places: Sequence[Place] | None = None) -> Placed:
        """Cluster of each prompt, in order, at its place."""
        ...

    def locate(self, embeddings: npt.NDArray[np.float32], places: Sequence[Place] | None = None) -> Placed:
        """The same of prompts that were embedded before."""
        ...

    def embed(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit rows of prompts."""
        ...

    def open(self, place: Place) -> None:
        """Hold a place ready, or raise why it cannot be."""
        ...


@dataclass(frozen=True)
class Sifted:
    """What is new among observations, and how many were not."""

    fresh: list[Observation]
    duplicates: int
    rejected: int


@dataclass(frozen=True)
class Intake:
    """Makes log entries of answered prompts."""

    languages: Sequence[str]
    keeper: Keeper
    placer: PromptPlacer
    clock: Callable[[], float]

    def sift(self, observations: Sequence[Observation], known: Container[str]) -> Sifted:
        """Leave out what is not sound, and what is ``known`` by its id or comes twice."""
        fresh: dict[str, Observation] = {}
        duplicates = rejected = 0
        for each in observations:
            if not sound(each, self.languages):
                rejected += 1
            elif each.id in known or each.id in fresh:
                duplicates += 1
            else:
                fresh[each.id] = each
        return Sifted(list(fresh.values()), duplicates, rejected)

    def entries(self, observations: Sequence[Observation], places: Mapping[str, Place]) -> list[Event]:
        """A log entry of each prompt that can be placed, in order; ``places`` says by language where."""
        if not observations:
            return []
        texts = [clean(each.prompt) for each in observations]
        try:
            placed = self.placer.place(texts, [places[each.language] for each in observations])
        except Exception as error:  # a prompt that no encoder takes must not be sent again for ever, and hold up all others
            if len(observations) == 1:  # the error's own words may be the prompt's
                logger.warning("the prompt of %s could not be placed: %s", observations[0].id, type(error).__name__)
                return []
            return [entry for each in observations for entry in self.entries([each], places)]
        return [self._entry(*each) for each in zip(observations, texts, each_place(placed), strict=True)]

    def _entry(self, seen: Observation, text: str, place: Spot) -> Event:
        return {
            "event": "prompt",
            "id": seen.id,
            "language": seen.language,
            **place.fields(),
            "version": seen.version,
            "nll": round(seen.nll, _DIGITS) if seen.nll is not None and math.isfinite(seen.nll) else None,
            "time": min(seen.time, self.clock()),  # a clock ahead of this one would keep the prompt for longer
            **({} if seen.alone else {"alone": False}),
            **self.keeper.of_prompt(seen.language, text, place.embedding, seen.key),
        }


@dataclass(frozen=True)
class Spot:
    """Where one prompt lies, as it is written down."""

    cluster: int
    coarse: int
    distance: float
    embedding: npt.NDArray[np.float32]

    def fields(self) -> dict[str, Any]:
        """What a log entry says of it."""
        return {"cluster": self.cluster, "coarse": self.coarse, "distance": self.distance}


def each_place(placed: Placed) -> Iterator[Spot]:
    """Where each of some prompts lies."""
    for cluster, coarse, distance, embedding in zip(
        placed.cluster, placed.coarse, placed.distances, placed.embeddings, strict=True
    ):
        yield Spot(int(cluster), int(coarse), round(float(distance), _DIGITS), embedding)
