"""Which clustering is watched: one small file that is replaced in one step, or ``clusters`` while it is not there.

Key property: of two processes that change it at the same instant one is refused, and every clustering that was ever in use stays
on record, so one that is whole and was never used is known for one whose re-clustering was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compass_ray.artifacts import Artifact, ArtifactError, RunDir

INITIAL_CLUSTERING = "clusters"
"""The clustering that the cluster stage made."""


@dataclass(frozen=True)
class ActiveClustering:
    """The pointer as it was read, the clustering that it names, and those that were in use before, the latest last."""

    pointer: Mapping[str, Any] | None
    name: str
    history: tuple[str, ...]

    def was_ever_active(self, name: str) -> bool:
        """Whether a clustering is or was in use."""
        return name in (INITIAL_CLUSTERING, self.name, *self.history)


def read_active(run: RunDir) -> ActiveClustering:
    """The clustering that the run's traffic is counted in; one of another pool, since made anew, counts no more.

    Raises:
        ArtifactError: the pointer is damaged, or names a clustering that is not whole.
    """
    raw = run.active_clustering_pointer().read()
    if raw is None:
        return ActiveClustering(None, INITIAL_CLUSTERING, ())
    name, history = raw.get("clusters"), raw.get("history", [])
    if not isinstance(name, str) or not isinstance(history, list):
        raise ArtifactError(
            f"{run.uri}/serving/clusters.json names no clustering ({name!r}); delete it to count in 'clusters' again, or "
            f"run 'compass-ray recluster {run.uri}'"
        )
    past = tuple(str(each) for each in history)
    return ActiveClustering(raw, name if is_of_current_pool(run, name) else INITIAL_CLUSTERING, past)


def is_of_current_pool(run: RunDir, name: str) -> bool:
    """Whether a clustering was fitted on the embeddings that ``clusters`` was fitted on."""
    ours, theirs = run.clusters.require(), run.reclustering(name).require()
    return ours.inputs.get("embeddings") == theirs.inputs.get("embeddings")


def set_active(run: RunDir, found: ActiveClustering, name: str, *, reason: str, clock: Callable[[], float] = time.time) -> None:
    """Count in another clustering from now on.

    Raises:
        ArtifactError: it is not whole, or another process has changed the pointer since ``found`` was read.
    """
    run.reclustering(name).require()
    history = [*(each for each in found.history if each != name), found.name]
    pointer = {"clusters": name, "since": clock(), "reason": reason, "history": history}
    run.active_clustering_pointer().compare_and_swap(pointer, found.pointer)


def clustering_of(artifact: Artifact) -> str:
    """Name of the clustering that an artefact's clusters are of: ``clusters`` unless its manifest names another."""
    return str(artifact.require().config.get("clusters", INITIAL_CLUSTERING))
