"""Overlay run: a run directory with its own adapters, selections and gate records that reads everything else from a run.

The code that updates a served adapter works on it unchanged, because it is a run directory. Missing artifacts are read from
the parent, which is never written to. It is not sent to workers.
"""

from __future__ import annotations

from compass_ray.artifacts import Artifact, RunDir

FIRST_VERSION = "v0001"
"""The first version of every overlay."""


class OverlayRun(RunDir):
    """A directory below a parent (a run or another overlay) that reads missing artifacts from the parent."""

    def __init__(self, parent: RunDir, *parts: str) -> None:
        """Open the overlay at a path below its parent."""
        super().__init__("/".join((parent.uri, *parts)))
        self.parent = parent

    def artifact(self, *parts: str) -> Artifact:
        """The overlay's own artifact, unless only the parent has a complete one."""
        own = self.own_artifact(*parts)
        if own.manifest() is not None:
            return own
        inherited = self.parent.artifact(*parts)
        return own if inherited.manifest() is None else inherited

    def own_artifact(self, *parts: str) -> Artifact:
        """The overlay's own artifact, complete or not."""
        return super().artifact(*parts)


def version_name(number: int) -> str:
    """The name of a version; the first is number 1.

    >>> version_name(1) == FIRST_VERSION, version_name(3)
    (True, 'v0003')
    """
    return f"v{number:04d}"
