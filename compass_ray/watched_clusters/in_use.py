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

FITTED = "clusters"
"""The clustering that the cluster stage made."""


@dataclass(frozen=True)
class InUse:
    """The pointer as it was read, the clustering that it names, and those that were in use before, the latest last."""

    raw: Mapping[str, Any] | None
    name: str
    history: tuple[str, ...]

    def knows(self, name: str) -> bool:
        """Whether a clustering is or was in use."""
        return name in (FITTED, self.name, *self.history)


def in_use(run: RunDir) -> InUse:
    """The clustering that the run's traffic is counted in; one of another pool, since made anew, counts no more.

    Raises:
        ArtifactError: the pointer is damaged, or names a clustering that is not whole.
    """
    raw = run.clusters_in_use().read()
    if raw is None:
        return InUse(None, FITTED, ())
    name, history = raw.get("clusters"), raw.get("history", [])
    if not isinstance(name, str) or not isinstance(history, list):
        raise ArtifactError(
            f"{run.uri}/serving/clusters.json names no clustering ({name!r}); delete it to count in 'clusters' again, or "
            f"run 'compass-ray recluster {run.uri}'"
        )
    past = tuple(str(each) for each in history)
    return InUse(raw, name if of_this_pool(run, name) else FITTED, past)


def of_this_pool(run: RunDir, name: str) -> bool:
    """Whether a clustering was fitted on the embeddings that ``clusters`` was fitted on."""
    ours, theirs = run.clusters.require(), run.refitted(name).require()
    return ours.inputs.get("embeddings") == theirs.inputs.get("embeddings")


def use(run: RunDir, found: InUse, name: str, *, reason: str, clock: Callable[[], float] = time.time) -> None:
    """Count in another clustering from now on.

    Raises:
        ArtifactError: it is not whole, or another process has changed the pointer since ``found`` was read.
    """
    run.refitted(name).require()
    history = [*(each for each in found.history if each != name), found.name]
    pointer = {"clusters": name, "since": clock(), "reason": reason, "history": history}
    run.clusters_in_use().replace(pointer, found.raw)


def made_in(artifact: Artifact) -> str:
    """Name of the clustering that an artefact's clusters are of: ``clusters`` unless its manifest names another."""
    return str(artifact.require().config.get("clusters", FITTED))
