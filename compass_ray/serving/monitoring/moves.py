"""Windows that follow their clusters: where other clusters are watched, or centroids moved, a window is placed anew.

Key property: a window lies at one place, the one that its language's prompts are placed at from then on, and every move is an
event of the log, so a monitor made anew has it too. What is kept of a prompt places it, its embedding or its text; one of which
nothing is kept is out of the window. COMPASS, section 3.3.1. It compares nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.models.errors import ModelError
from compass_ray.serving.monitoring.intake import PromptPlacer, each_place
from compass_ray.serving.monitoring.retention import unpacked
from compass_ray.serving.monitoring.windows import Event, Watch
from compass_ray.watched_clusters import FITTED, Place, in_use, place_of

logger = logging.getLogger(__name__)

_Spot = dict[str, Any]
"""Cluster, coarse cluster and distance of a prompt, as its log entry has them."""


class Moves:
    """Where the prompts of each language are placed, as of the last look."""

    def __init__(self, run: RunDir, placer: PromptPlacer) -> None:
        """Look at what is in use."""
        self.run, self.placer = run, placer
        self.clusters, self.fingerprint = FITTED, ""
        self._known: dict[tuple[str, str, str], Place] = {}
        self._last: dict[str, Place] = {}
        self._refused: set[tuple[str, str, str]] = set()
        """What could not be used since the last look."""
        self.look()

    def look(self) -> None:
        """Read which clustering is in use; where that cannot be read, it is the one before. What failed is tried again."""
        self._refused.clear()
        try:
            found = in_use(self.run).name
            if found != self.clusters or not self.fingerprint:
                self.clusters, self.fingerprint = found, self.run.refitted(found).require().fingerprint
        except ArtifactError as error:  # whoever reads the page or the log sees it; traffic is still recorded
            logger.warning("prompts are placed in %s still: %s", self.clusters, error)

    def place(self, watch: Watch) -> Place:
        """Where a watch's prompts are placed: at the centroids of the version that is watched, or live before one is.

        While that place cannot be used it is the one before, and nothing is compared there.
        """
        key = (self.clusters, watch.language, watch.version or self._live(watch.language))
        if key not in self._known and key not in self._refused:
            self._open(*key)
        if key in self._known:
            self._last[watch.language] = self._known[key]
        return self._last.get(watch.language, Place(FITTED))

    def due(self, watch: Watch) -> Event | None:
        """The event that takes a window to where it is to be, None where it is there."""
        place = self.place(watch)
        if place.mark == watch.place:
            return None
        spots = self._spots(list(watch.window), place)
        lost = spots.count(None)
        if lost:
            told = "%s: %d of %d prompts are out of the window, as too little is kept of them to place them in %s"
            logger.warning(told, watch.language, lost, len(spots), place.mark)
        return {"event": "recluster", "language": watch.language, "place": place.mark, "assigned": spots}

    def _open(self, clusters: str, language: str, version: str) -> None:
        try:
            place = place_of(self.run, clusters, language, version or None)
            self.placer.open(place)
        except (ArtifactError, ModelError, OSError, ValueError) as error:
            logger.error("%s is not checked: clusters %s of %s cannot be used: %s", language, clusters, version, error)
            self._refused.add((clusters, language, version))
        else:
            self._known[clusters, language, version] = place

    def _live(self, language: str) -> str:
        try:
            return str((self.run.live(language) or {}).get("version", ""))
        except ArtifactError:
            return ""

    def _spots(self, window: Sequence[Event], place: Place) -> list[_Spot | None]:
        """Where each prompt lies at a place, None for one of which too little is kept."""
        found: list[_Spot | None] = [None] * len(window)
        stored = [i for i, entry in enumerate(window) if "embedding" in entry]
        written = [i for i, entry in enumerate(window) if "embedding" not in entry and "prompt" in entry]
        for rows, vectors in ((stored, self._stored), (written, self._written)):
            try:
                placed = self.placer.locate(vectors([window[i] for i in rows]), [place] * len(rows)) if rows else None
            except Exception as error:  # what no encoder takes must not hold up all prompts to come
                logger.error("%d prompts could not be placed in %s: %s", len(rows), place.mark, type(error).__name__)
                continue
            for i, spot in zip(rows, each_place(placed) if placed else (), strict=True):
                found[i] = spot.fields()
        return found

    def _stored(self, entries: Sequence[Event]) -> np.ndarray:
        return np.array([unpacked(entry["embedding"]) for entry in entries], np.float32)

    def _written(self, entries: Sequence[Event]) -> np.ndarray:
        return self.placer.embed([entry["prompt"] for entry in entries])
