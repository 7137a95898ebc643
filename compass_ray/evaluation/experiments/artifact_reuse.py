"""Artefacts that variants have in common are made once: before one is made, an equal one of another variant is taken over.

Key property: equality is that of fingerprints, asked where a stage asks whether its artefact is done, so whatever decides
what an artefact is made of decides what is shared. Files are linked where the disk can, copied within the object store
otherwise, and the manifest comes last; so a variant is a whole run of its own, which outlives the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts import MANIFEST, SCHEMA_VERSION, Artifact, ArtifactError, Identity, Manifest, RunDir
from compass_ray.artifacts.files import Files

REUSED_FROM = "taken_from"
"""Key of a manifest's provenance that names the variant an artefact was made in."""


class ArtifactDonors:
    """The runs of all variants, and which whole artefacts they have."""

    def __init__(self, runs: Sequence[RunDir]) -> None:
        """Nothing is read until it is asked for, and then once."""
        self._runs = {run.uri: run for run in runs}
        self._known: dict[tuple[str, str], Manifest | None] = {}
        self._completed: set[str] = set()

    def find(self, name: str, identity: Identity, *, asking: str, made: bool) -> tuple[RunDir, Manifest] | None:
        """A run that has this very artefact; with ``made``, of the runs that ended since this experiment started."""
        for uri, run in self._runs.items():
            if uri == asking or (made and uri not in self._completed):
                continue
            found = self._manifest(run, name)
            if found and found.fingerprint == identity.fingerprint and found.schema_version == SCHEMA_VERSION:
                return run, found
        return None

    def record_end(self, run: RunDir, *, whole: bool) -> None:
        """The run has what it has from now on; ``whole`` if all that was asked for."""
        self._known = {key: known for key, known in self._known.items() if key[0] != run.uri}
        if whole:
            self._completed.add(run.uri)

    def _manifest(self, run: RunDir, name: str) -> Manifest | None:
        key = (run.uri, name)
        if key not in self._known:
            self._known[key] = run.artifact(name).manifest()
        return self._known[key]


class VariantRun(RunDir):
    """A variant's run directory, whose artefacts are taken over from other variants where equal ones stand."""

    def __init__(self, uri: str, donors: ArtifactDonors) -> None:
        """As a run directory, beside those of ``donors``."""
        super().__init__(uri)
        self._donors = donors

    def __reduce__(self) -> tuple[type[RunDir], tuple[str]]:
        """Workers make what the driver found to be missing; they need the plain run directory."""
        return (RunDir, (self.uri,))

    def artifact(self, *parts: str) -> Artifact:
        """The artefact at a path below the run, which may be taken over."""
        plain = super().artifact(*parts)
        return _ReusableArtifact(plain, self)

    def try_reuse(self, artifact: Artifact, identity: Identity, *, force: bool) -> Manifest | None:
        """Take over an equal artefact, if there is one."""
        found = self._donors.find(artifact.name, identity, asking=self.uri, made=force)
        return reuse_artifact(artifact, found[0].artifact(artifact.name), found[1]) if found else None


class _ReusableArtifact(Artifact):
    """An artefact that looks about before it says that it is to be made."""

    def __init__(self, plain: Artifact, run: VariantRun) -> None:
        super().__init__(plain.filesystem, plain.path, plain.name)
        self._run = run

    def __reduce__(self) -> tuple[type[Artifact], tuple[pafs.FileSystem, str, str]]:
        """Workers look about for nothing."""
        return (Artifact, (self.filesystem, self.path, self.name))

    def find_complete(self, identity: Identity, *, force: bool = False) -> Manifest | None:
        """As of any artefact, after an equal one of another variant was taken over if this one is to be made."""
        found = super().find_complete(identity, force=force)
        return found or self._run.try_reuse(self, identity, force=force)


def reuse_artifact(artifact: Artifact, donor: Artifact, manifest: Manifest) -> Manifest:
    """Make ``artifact`` the same as a whole one of another run on the same filesystem.

    Args:
        artifact: where to; what is there is removed.
        donor: whose files are taken.
        manifest: the donor's.

    Returns:
        The manifest, which names the run that the artefact was made in and is otherwise the donor's.

    Raises:
        ArtifactError: the donor lacks a file that its manifest names.
    """
    artifact.remove()
    for output in manifest.outputs:
        _link_or_copy(artifact.filesystem, f"{donor.path}/{output.path}", f"{artifact.path}/{output.path}")
    origin = donor.path.removesuffix(f"/{donor.name}").rpartition("/")[2]
    told = manifest.model_copy(update={"provenance": {REUSED_FROM: origin, **manifest.provenance}})
    artifact.store_bytes(MANIFEST, told.model_dump_json(indent=2).encode())
    return told


def _link_or_copy(filesystem: pafs.FileSystem, source: str, target: str) -> None:
    """Without moving the bytes, where that can be done: a file of an artefact is replaced or removed and never written to."""
    files = Files(filesystem)
    if files.size(source) is None:
        raise ArtifactError(f"{source} is missing; remove {source.rpartition('/')[0]} and run again")
    try:
        if files.local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        else:
            files.with_retries(lambda: filesystem.copy_file(source, target), target)
    except (OSError, ArtifactError):
        # A disk without links, or an object larger than the store copies in one request.
        files.with_retries(lambda: _copy(filesystem, source, target), target)


def _copy(filesystem: pafs.FileSystem, source: str, target: str) -> None:
    pafs.copy_files(source, target, source_filesystem=filesystem, destination_filesystem=filesystem)
