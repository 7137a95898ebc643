"""Errors of run directories and their artifacts."""

from __future__ import annotations

from collections.abc import Mapping


class ArtifactError(RuntimeError):
    """An artifact is missing, damaged, or made by another configuration."""


class DamagedFileError(ArtifactError, ValueError):
    """A file of an artifact has not the content that was written, or cannot be decoded."""


class MissingFileError(ArtifactError, FileNotFoundError):
    """An artifact lacks a file that it should have."""


class FingerprintMismatchError(ArtifactError):
    """A complete artifact exists, and it was made with other settings or inputs."""


class LanguagesFailedError(ArtifactError):
    """A stage failed in some languages; its artifacts of the other languages are complete."""

    def __init__(self, failures: Mapping[str, str]) -> None:
        """Store the reason of each failed language."""
        self.failures = dict(failures)
        reasons = "; ".join(f"{language}: {reason}" for language, reason in sorted(self.failures.items()))
        count = "one language" if len(self.failures) == 1 else f"{len(self.failures)} languages"
        super().__init__(f"{count} failed; the artifacts of the other languages are complete. {reasons}")
