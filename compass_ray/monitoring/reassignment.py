"""Move windows to the active cluster space after a re-clustering or a move of centroids.

All prompts of a window are in one cluster space, which is also that of the language's next prompts. A move is an event of
the log, so a restarted monitor has it too. Prompts are re-assigned by their stored embedding or text; prompts without
either leave the window. COMPASS, section 3.3.1.
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
from compass_ray.registry import read_pointer

logger = logging.getLogger(__name__)

_AssignmentRecord = dict[str, Any]
"""Cluster, coarse cluster and distance of a prompt, as in its log entry."""


class ClusterReassigner:
    """Knows the cluster space of each language, as of the last `refresh`, and re-assigns windows."""

    def __init__(self, run: RunDir, assigner: PromptAssignerProtocol) -> None:
        """Read the active clustering."""
        self.run, self.assigner = run, assigner
        self.clusters, self.fingerprint = INITIAL_CLUSTERING, ""
        self._spaces: dict[tuple[str, str, str], ClusterSpace] = {}
        self._last_space: dict[str, ClusterSpace] = {}
        self._unusable: set[tuple[str, str, str]] = set()
        """Cluster spaces that could not be loaded since the last `refresh`."""
        self.refresh()

    def refresh(self) -> None:
        """Read the active clustering again, and retry failed cluster spaces. If it cannot be read, the old one stays."""
        self._unusable.clear()
        try:
            active = read_active(self.run).name
            if active != self.clusters or not self.fingerprint:
                self.clusters, self.fingerprint = active, self.run.reclustering(active).require().fingerprint
        except ArtifactError as error:  # traffic is still recorded
            logger.warning("monitor: active clustering unreadable, keeping %s: %s", self.clusters, error)

    def space_for(self, state: LanguageMonitorState) -> ClusterSpace:
        """The cluster space of a language: the centroids of the monitored version, or before monitoring of the live one.

        If that space cannot be loaded, the last one is used, and the window is not checked for drift.
        """
        key = (self.clusters, state.language, state.version or self._live_version(state.language))
        if key not in self._spaces and key not in self._unusable:
            self._load_space(*key)
        if key in self._spaces:
            self._last_space[state.language] = self._spaces[key]
        return self._last_space.get(state.language, ClusterSpace(INITIAL_CLUSTERING))

    def reassignment_event(self, state: LanguageMonitorState) -> Event | None:
        """The event that moves a window to its current cluster space, None if it is there."""
        space = self.space_for(state)
        if space.space_id == state.space_id:
            return None
        assigned = self._assign_window(list(state.window), space)
        lost = assigned.count(None)
        if lost:
            message = "monitor: %d of %d prompts left the window, language=%s: not enough is stored to assign them in %s"
            logger.warning(message, lost, len(assigned), state.language, space.space_id)
        return {"event": "recluster", "language": state.language, "place": space.space_id, "assigned": assigned}

    def _load_space(self, clusters: str, language: str, version: str) -> None:
        try:
            space = resolve_space(self.run, clusters, language, version or None)
            self.assigner.preload(space)
        except (ArtifactError, ModelError, OSError, ValueError) as error:
            message = "monitor: no drift checks, language=%s version=%s: clustering %s cannot be loaded: %s"
            logger.error(message, language, version, clusters, error)
            self._unusable.add((clusters, language, version))
        else:
            self._spaces[clusters, language, version] = space

    def _live_version(self, language: str) -> str:
        try:
            return read_pointer(self.run, language).version or ""
        except ArtifactError:
            return ""

    def _assign_window(self, window: Sequence[Event], space: ClusterSpace) -> list[_AssignmentRecord | None]:
        """The assignment of each prompt in a cluster space, None for prompts without a stored embedding or text."""
        records: list[_AssignmentRecord | None] = [None] * len(window)
        embedded = [i for i, entry in enumerate(window) if "embedding" in entry]
        texts = [i for i, entry in enumerate(window) if "embedding" not in entry and "prompt" in entry]
        for rows, vectors in ((embedded, self._stored_embeddings), (texts, self._embed_prompts)):
            if not rows:
                continue
            try:
                assigned = self.assigner.assign_embeddings(vectors([window[i] for i in rows]), [space] * len(rows))
            except Exception as error:  # a prompt that the encoder rejects must not block later prompts
                logger.error("monitor: %d prompts not assigned in %s: %s", len(rows), space.space_id, type(error).__name__)
                continue
            for i, assignment in zip(rows, iter_assignments(assigned), strict=True):
                records[i] = assignment.to_record()
        return records

    def _stored_embeddings(self, entries: Sequence[Event]) -> np.ndarray:
        return np.array([unpack_embedding(entry["embedding"]) for entry in entries], np.float32)

    def _embed_prompts(self, entries: Sequence[Event]) -> np.ndarray:
        return self.assigner.embed([entry["prompt"] for entry in entries])
