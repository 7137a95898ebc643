"""A line of versions beside a run: it has adapters, selections and verdicts of its own, and everything else is the run's.

Key property: what makes updates of a served adapter makes these as well, since a line is a run directory by every name; what
it lacks it reads from where it came, and it never writes there. It does not travel to workers.
"""

from __future__ import annotations

from compass_ray.artifacts import Artifact, RunDir

FIRST_VERSION = "v0001"
"""The version that every line begins with."""


class OverlayRun(RunDir):
    """A directory below a run that reads from the run, or from another line, what it has not itself."""

    def __init__(self, origin: RunDir, *parts: str) -> None:
        """The line at a path below its origin."""
        super().__init__("/".join((origin.uri, *parts)))
        self.parent = origin

    def artifact(self, *parts: str) -> Artifact:
        """Its own artefact, unless only its origin has a whole one."""
        own = self.own_artifact(*parts)
        if own.manifest() is not None:
            return own
        there = self.parent.artifact(*parts)
        return own if there.manifest() is None else there

    def own_artifact(self, *parts: str) -> Artifact:
        """Its own artefact, whole or not."""
        return super().artifact(*parts)


def version_name(number: int) -> str:
    """The name of a version; the first is number 1.

    >>> version_name(1) == FIRST_VERSION, version_name(3)
    (True, 'v0003')
    """
    return f"v{number:04d}"
