"""The active clustering of a run: one small file that is replaced atomically, or ``clusters`` while the file is missing.

If two processes change it at the same time, one is rejected. The file lists every clustering that was ever active. So a
complete clustering that was never active is recognized as an interrupted re-clustering.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compass_ray.artifacts import Artifact, ArtifactError, RunDir

INITIAL_CLUSTERING = "clusters"
"""The clustering that the cluster stage created."""


@dataclass(frozen=True)
class ActiveClustering:
    """The pointer as read, the clustering that it names, and the previously active ones, latest last."""

    pointer: Mapping[str, Any] | None
    name: str
    history: tuple[str, ...]

    def was_ever_active(self, name: str) -> bool:
        """Whether a clustering is or was active."""
        return name in (INITIAL_CLUSTERING, self.name, *self.history)


def read_active(run: RunDir) -> ActiveClustering:
    """The clustering in which the run's traffic is counted. A clustering of an earlier pool is ignored.

    Raises:
        ArtifactError: the pointer is damaged, or names an incomplete clustering.
    """
    raw = run.active_clustering_pointer().read()
    if raw is None:
        return ActiveClustering(None, INITIAL_CLUSTERING, ())
    name, history = raw.get("clusters"), raw.get("history", [])
    if not isinstance(name, str) or not isinstance(history, list):
        raise ArtifactError(
            f"{run.shown_uri}/serving/clusters.json names no clustering ({name!r}); delete it to use 'clusters' again, or "
            f"run 'compass-ray recluster {run.shown_uri}'"
        )
    earlier = tuple(str(each) for each in history)
    return ActiveClustering(raw, name if is_of_current_pool(run, name) else INITIAL_CLUSTERING, earlier)


def is_of_current_pool(run: RunDir, name: str) -> bool:
    """Whether a clustering was fitted on the same embeddings as ``clusters``."""
    initial, other = run.clusters.require(), run.reclustering(name).require()
    return initial.inputs.get("embeddings") == other.inputs.get("embeddings")


def set_active(run: RunDir, active: ActiveClustering, name: str, *, reason: str, clock: Callable[[], float] = time.time) -> None:
    """Count traffic in the clustering ``name`` from now on.

    Raises:
        ArtifactError: it is incomplete, or another process changed the pointer since ``active`` was read.
    """
    run.reclustering(name).require()
    history = [*(each for each in active.history if each != name), active.name]
    pointer = {"clusters": name, "since": clock(), "reason": reason, "history": history}
    run.active_clustering_pointer().compare_and_swap(pointer, active.pointer)


def clustering_of(artifact: Artifact) -> str:
    """Name of the clustering of an artifact: ``clusters`` unless its manifest names another one."""
    return str(artifact.require().config.get("clusters", INITIAL_CLUSTERING))
