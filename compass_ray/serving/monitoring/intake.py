"""From observations to the entries of the monitor's log: what is taken in, where it belongs, and what is kept of it.

Key property: one prompt that cannot be placed never takes its batch with it, and no field that the retention setting does not
allow is in an entry. It writes nothing and remembers nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.serving.monitoring.observations import Observation, clean, sound
from compass_ray.serving.monitoring.placing import Placed
from compass_ray.serving.monitoring.retention import Keeper
from compass_ray.serving.monitoring.windows import Event

logger = logging.getLogger(__name__)


class PromptPlacer(Protocol):
    """Finds the clusters of prompts."""

    def place(self, prompts: Sequence[str]) -> Placed:
        """Cluster of each prompt, in order."""
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

    def entries(self, observations: Sequence[Observation]) -> list[Event]:
        """A log entry of each prompt that can be placed, in order."""
        if not observations:
            return []
        texts = [clean(each.prompt) for each in observations]
        try:
            placed = self.placer.place(texts)
        except Exception as error:  # a prompt that no encoder takes must not be sent again for ever, and hold up all others
            if len(observations) == 1:  # the error's own words may be the prompt's
                logger.warning("the prompt of %s could not be placed: %s", observations[0].id, type(error).__name__)
                return []
            return [entry for each in observations for entry in self.entries([each])]
        rows = zip(observations, texts, placed.cluster, placed.coarse, placed.embeddings, strict=True)
        return [self._entry(*row) for row in rows]

    def _entry(
        self, seen: Observation, text: str, cluster: np.int32, coarse: np.int32, embedding: npt.NDArray[np.float32]
    ) -> Event:
        finite = seen.nll is not None and math.isfinite(seen.nll)
        return {
            "event": "prompt",
            "id": seen.id,
            "language": seen.language,
            "cluster": int(cluster),
            "coarse": int(coarse),
            "version": seen.version,
            "nll": seen.nll if finite else None,
            "time": min(seen.time, self.clock()),  # a clock ahead of this one would keep the prompt for longer
            **self.keeper.of_prompt(seen.language, text, embedding, seen.key),
        }
