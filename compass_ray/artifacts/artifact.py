"""One artifact directory: find, begin, verify and publish it.

Key property: an artifact is complete if and only if its ``manifest.json`` exists, and the manifest is written last.
"""

from __future__ import annotations

import json

from compass_ray.artifacts.artifact_files import IN_PROGRESS_FILE, ArtifactFiles, utc_timestamp
from compass_ray.artifacts.errors import ArtifactError, FingerprintMismatchError
from compass_ray.artifacts.manifest import (
    SCHEMA_VERSION,
    Identity,
    Manifest,
    describe_fingerprint_diff,
)
from compass_ray.artifacts.writer import Writer

_ADVICE = "Choose a new --run, or recompute it with --force {stage}"


class Artifact(ArtifactFiles):
    """One artifact directory of a run, on any filesystem that pyarrow supports."""

    def require(self) -> Manifest:
        """The manifest of an artifact that must be complete.

        Raises:
            ArtifactError: the artifact is not complete.
        """
        manifest = self.manifest()
        if manifest is None:
            raise ArtifactError(f"{self.name} is missing in this run; run 'compass-ray adapt' first")
        return manifest

    def find_complete(self, identity: Identity, *, force: bool = False) -> Manifest | None:
        """The manifest if an artifact with this identity is complete; None if it has to be made, as always with ``force``.

        Raises:
            FingerprintMismatchError: an artifact with another identity is complete.
        """
        manifest = self.manifest()
        if manifest is None or force:
            return None
        if manifest.fingerprint == identity.fingerprint and manifest.schema_version == SCHEMA_VERSION:
            return manifest
        # The command eval has no --run, and its --force takes no stage.
        advice = "Recompute it with --force" if identity.stage == "harness" else _ADVICE.format(stage=identity.stage)
        raise FingerprintMismatchError(
            f"{self.name} was made with other settings: {describe_fingerprint_diff(manifest, identity)}. {advice}"
        )

    def begin(self, identity: Identity, *, keep_partial: bool = False) -> Writer:
        """Start writing. Files of an unfinished attempt are removed, unless ``keep_partial`` and the identity is the same."""
        marker = self.read_in_progress_marker()
        if not (keep_partial and marker and self.manifest() is None and marker.fingerprint == identity.fingerprint):
            self.remove()
            self._files.make_folder(self.path)
            started = {"fingerprint": identity.fingerprint, "started": utc_timestamp()}
            self._files.put(f"{self.path}/{IN_PROGRESS_FILE}", json.dumps(started).encode())
        return Writer(self, identity)

    def verify(self) -> Manifest:
        """Check every file against the manifest.

        Raises:
            ArtifactError: a file is missing or its content has changed.
        """
        manifest = self.require()
        for output in manifest.outputs:
            self.compare(output)
        return manifest
