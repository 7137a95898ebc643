"""Reuse of artifacts between variants: before a stage makes an artifact, an equal one of another variant is taken.

Artifacts are equal if their fingerprints are equal. The check is part of the check whether a stage is complete, so the
settings in the fingerprint decide what is shared. Files are linked on disks that support it and copied otherwise, within
the object store. The manifest is written last. Each variant is therefore a complete run that outlives the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts import MANIFEST, SCHEMA_VERSION, Artifact, ArtifactError, Identity, Manifest, RunDir
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.write_errors import explain_write_errors

REUSED_FROM = "taken_from"
"""Key in the provenance of a manifest: the variant that made the artifact."""


class ArtifactDonors:
    """The runs of all variants and their complete artifacts."""

    def __init__(self, runs: Sequence[RunDir]) -> None:
        """Register the runs. Each manifest is read once, on first use."""
        self._runs = {run.uri: run for run in runs}
        self._known: dict[tuple[str, str], Manifest | None] = {}
        self._completed: set[str] = set()

    def find(self, name: str, identity: Identity, *, requester: str, completed_only: bool) -> tuple[RunDir, Manifest] | None:
        """Return a run other than ``requester`` that has an equal artifact, and its manifest.

        With ``completed_only``, consider only runs that completed since this object was created.
        """
        for uri, run in self._runs.items():
            if uri == requester or (completed_only and uri not in self._completed):
                continue
            manifest = self._manifest(run, name)
            if manifest and manifest.fingerprint == identity.fingerprint and manifest.schema_version == SCHEMA_VERSION:
                return run, manifest
        return None

    def record_end(self, run: RunDir, *, complete: bool) -> None:
        """Record that a run ended. Its manifests are read again; ``complete`` if no stage failed."""
        self._known = {key: known for key, known in self._known.items() if key[0] != run.uri}
        if complete:
            self._completed.add(run.uri)

    def _manifest(self, run: RunDir, name: str) -> Manifest | None:
        key = (run.uri, name)
        if key not in self._known:
            self._known[key] = run.artifact(name).manifest()
        return self._known[key]


class VariantRun(RunDir):
    """Run directory of a variant that reuses equal artifacts of other variants."""

    def __init__(self, uri: str, donors: ArtifactDonors) -> None:
        """Open the run directory; ``donors`` are the runs to reuse artifacts from."""
        super().__init__(uri)
        self._donors = donors

    def __reduce__(self) -> tuple[type[RunDir], tuple[str]]:
        """Pickle as a plain run directory: workers only make what the driver found missing."""
        return (RunDir, (self.uri,))

    def artifact(self, *parts: str) -> Artifact:
        """The artifact at a path below the run; it may be reused from another variant."""
        return _ReusableArtifact(super().artifact(*parts), self)

    def try_reuse(self, artifact: Artifact, identity: Identity, *, force: bool) -> Manifest | None:
        """Reuse an equal artifact of another variant, if there is one."""
        found = self._donors.find(artifact.name, identity, requester=self.uri, completed_only=force)
        return reuse_artifact(artifact, found[0].artifact(artifact.name), found[1]) if found else None


class _ReusableArtifact(Artifact):
    """An artifact that tries to reuse an equal one before it reports that it is missing."""

    def __init__(self, plain: Artifact, run: VariantRun) -> None:
        super().__init__(plain.filesystem, plain.path, plain.name)
        self._run = run

    def __reduce__(self) -> tuple[type[Artifact], tuple[pafs.FileSystem, str, str]]:
        """Pickle as a plain artifact: workers reuse nothing."""
        return (Artifact, (self.filesystem, self.path, self.name))

    def find_complete(self, identity: Identity, *, force: bool = False) -> Manifest | None:
        """Return the manifest if the artifact is complete or can be reused from another variant, else None."""
        return super().find_complete(identity, force=force) or self._run.try_reuse(self, identity, force=force)


def reuse_artifact(artifact: Artifact, donor: Artifact, manifest: Manifest) -> Manifest:
    """Link or copy a complete artifact of another run on the same filesystem.

    Args:
        artifact: the target; its existing files are removed.
        donor: the source.
        manifest: the manifest of the donor.

    Returns:
        The new manifest: that of the donor, plus the name of the run that made the artifact.

    Raises:
        ArtifactError: the donor lacks a file that its manifest lists.
    """
    artifact.remove()
    for output in manifest.outputs:
        donor.compare(output, hashed=False)
        _link_or_copy(artifact.filesystem, donor.file_path(output.path), artifact.file_path(output.path))
    origin = donor.path.removesuffix(f"/{donor.name}").rpartition("/")[2]
    reused = manifest.model_copy(update={"provenance": {REUSED_FROM: origin, **manifest.provenance}}).sealed()
    artifact.store_bytes(MANIFEST, reused.model_dump_json(indent=2).encode())
    return reused


def _link_or_copy(filesystem: pafs.FileSystem, source: str, target: str) -> None:
    """Link a file if possible, else copy it. A link is safe: files of an artifact are replaced or removed, never modified."""
    files = Files(filesystem)
    try:
        if files.local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        else:
            files.with_retries(lambda: filesystem.copy_file(source, target), target)
    except (OSError, ArtifactError):
        # The disk does not support links, or the object is too large for a copy in one request.
        with explain_write_errors(target):
            files.with_retries(lambda: _copy(filesystem, source, target), target)


def _copy(filesystem: pafs.FileSystem, source: str, target: str) -> None:
    pafs.copy_files(source, target, source_filesystem=filesystem, destination_filesystem=filesystem)
