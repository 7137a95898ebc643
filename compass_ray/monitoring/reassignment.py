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
from compass_ray.clustering.versions import INITIAL_CLUSTERING, ClusterSpace, read_active, resolve_space
from compass_ray.models.errors import ModelError
from compass_ray.monitoring.ingest import PromptAssignerProtocol, iter_assignments
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState
from compass_ray.monitoring.retention import unpack_embedding

logger = logging.getLogger(__name__)

_AssignmentRecord = dict[str, Any]
"""Cluster, coarse cluster and distance of a prompt, as its log entry has them."""


class ClusterReassigner:
    """Where the prompts of each language are placed, as of the last look."""

    def __init__(self, run: RunDir, placer: PromptAssignerProtocol) -> None:
        """Look at what is in use."""
        self.run, self.assigner = run, placer
        self.clusters, self.fingerprint = INITIAL_CLUSTERING, ""
        self._spaces: dict[tuple[str, str, str], ClusterSpace] = {}
        self._last_space: dict[str, ClusterSpace] = {}
        self._unusable: set[tuple[str, str, str]] = set()
        """What could not be used since the last look."""
        self.refresh()

    def refresh(self) -> None:
        """Read which clustering is in use; where that cannot be read, it is the one before. What failed is tried again."""
        self._unusable.clear()
        try:
            found = read_active(self.run).name
            if found != self.clusters or not self.fingerprint:
                self.clusters, self.fingerprint = found, self.run.reclustering(found).require().fingerprint
        except ArtifactError as error:  # whoever reads the page or the log sees it; traffic is still recorded
            logger.warning("prompts are placed in %s still: %s", self.clusters, error)

    def space_for(self, watch: LanguageMonitorState) -> ClusterSpace:
        """Where a watch's prompts are placed: at the centroids of the version that is watched, or live before one is.

        While that place cannot be used it is the one before, and nothing is compared there.
        """
        key = (self.clusters, watch.language, watch.version or self._live_version(watch.language))
        if key not in self._spaces and key not in self._unusable:
            self._load_space(*key)
        if key in self._spaces:
            self._last_space[watch.language] = self._spaces[key]
        return self._last_space.get(watch.language, ClusterSpace(INITIAL_CLUSTERING))

    def reassignment_event(self, watch: LanguageMonitorState) -> Event | None:
        """The event that takes a window to where it is to be, None where it is there."""
        place = self.space_for(watch)
        if place.space_id == watch.place:
            return None
        spots = self._assign_window(list(watch.window), place)
        lost = spots.count(None)
        if lost:
            told = "%s: %d of %d prompts are out of the window, as too little is kept of them to place them in %s"
            logger.warning(told, watch.language, lost, len(spots), place.space_id)
        return {"event": "recluster", "language": watch.language, "place": place.space_id, "assigned": spots}

    def _load_space(self, clusters: str, language: str, version: str) -> None:
        try:
            place = resolve_space(self.run, clusters, language, version or None)
            self.assigner.preload(place)
        except (ArtifactError, ModelError, OSError, ValueError) as error:
            logger.error("%s is not checked: clusters %s of %s cannot be used: %s", language, clusters, version, error)
            self._unusable.add((clusters, language, version))
        else:
            self._spaces[clusters, language, version] = place

    def _live_version(self, language: str) -> str:
        try:
            return str((self.run.live(language) or {}).get("version", ""))
        except ArtifactError:
            return ""

    def _assign_window(self, window: Sequence[Event], place: ClusterSpace) -> list[_AssignmentRecord | None]:
        """Where each prompt lies at a place, None for one of which too little is kept."""
        found: list[_AssignmentRecord | None] = [None] * len(window)
        stored = [i for i, entry in enumerate(window) if "embedding" in entry]
        written = [i for i, entry in enumerate(window) if "embedding" not in entry and "prompt" in entry]
        for rows, vectors in ((stored, self._stored_embeddings), (written, self._embed_prompts)):
            try:
                placed = (
                    self.assigner.assign_embeddings(vectors([window[i] for i in rows]), [place] * len(rows)) if rows else None
                )
            except Exception as error:  # what no encoder takes must not hold up all prompts to come
                logger.error("%d prompts could not be placed in %s: %s", len(rows), place.space_id, type(error).__name__)
                continue
            for i, spot in zip(rows, iter_assignments(placed) if placed else (), strict=True):
                found[i] = spot.to_record()
        return found

    def _stored_embeddings(self, entries: Sequence[Event]) -> np.ndarray:
        return np.array([unpack_embedding(entry["embedding"]) for entry in entries], np.float32)

    def _embed_prompts(self, entries: Sequence[Event]) -> np.ndarray:
        return self.assigner.embed([entry["prompt"] for entry in entries])
