"""One artifact directory: find, begin, verify and publish it.

Key property: an artifact is complete if and only if its ``manifest.json`` exists, and the manifest is written last.
"""

from __future__ import annotations

import json

from pydantic import ValidationError

from compass_ray.artifacts.artifact_files import IN_PROGRESS_FILE, ArtifactFiles, utc_timestamp
from compass_ray.artifacts.errors import ArtifactError, FingerprintMismatchError
from compass_ray.artifacts.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Identity,
    Manifest,
    describe_fingerprint_diff,
)
from compass_ray.artifacts.writer import Writer


class Artifact(ArtifactFiles):
    """One artifact directory of a run, on any filesystem that pyarrow reaches."""

    def manifest(self) -> Manifest | None:
        """The manifest, or None where the artefact is not whole.

        Raises:
            ArtifactError: a manifest that cannot be read.
        """
        try:
            return Manifest.model_validate_json(self.read_bytes(MANIFEST))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ArtifactError(
                f"{self.path}/{MANIFEST} is damaged ({error.error_count()} problems); remove {self.path} and run again"
            ) from None

    def require(self) -> Manifest:
        """The manifest of an artefact that must be whole.

        Raises:
            ArtifactError: it is not.
        """
        found = self.manifest()
        if found is None:
            raise ArtifactError(f"{self.name} is missing below this run; run 'compass-ray adapt' for it first")
        return found

    def find_complete(self, identity: Identity, *, force: bool = False) -> Manifest | None:
        """The manifest if this very artefact is whole, None if it is to be made.

        Raises:
            FingerprintMismatchError: another one stands here; with ``force`` it is made anew in any case.
        """
        found = self.manifest()
        if found is None or force:
            return None
        if found.fingerprint == identity.fingerprint and found.schema_version == SCHEMA_VERSION:
            return found
        raise FingerprintMismatchError(
            f"{self.name} was made with other settings: {describe_fingerprint_diff(found, identity)}. Give a new --run, "
            f"or make it anew with --force {identity.stage}"
        )

    def begin(self, identity: Identity, *, keep_partial: bool = False) -> Writer:
        """Start to write. What an unfinished attempt left is removed, or kept if it was for the same identity."""
        begun = self.read_in_progress_marker()
        if not (keep_partial and begun and self.manifest() is None and begun.fingerprint == identity.fingerprint):
            self.remove()
            self._files.make_folder(self.path)
            mark = {"fingerprint": identity.fingerprint, "started": utc_timestamp()}
            self._files.put(f"{self.path}/{IN_PROGRESS_FILE}", json.dumps(mark).encode())
        return Writer(self, identity)

    def verify(self) -> Manifest:
        """Check every file against the manifest.

        Raises:
            ArtifactError: a file is missing or its content has changed.
        """
        manifest = self.require()
        for output in manifest.outputs:
            if self._sha256(output.path) != output.sha256:
                raise ArtifactError(f"{self.path}/{output.path} is damaged or missing; remove {self.path} and run again")
        return manifest

    def _sha256(self, file: str) -> str | None:
        try:
            return self._files.sha256(f"{self.path}/{file}")
        except FileNotFoundError:
            return None
