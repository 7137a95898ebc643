"""The error that names the languages in which a stage failed, so that the others can go on."""

from __future__ import annotations

from collections.abc import Mapping

from compass_ray.artifacts.manifest import ArtifactError


class LanguagesFailedError(ArtifactError):
    """A stage failed in some languages; its artefacts of the others are whole."""

    def __init__(self, failures: Mapping[str, str]) -> None:
        """Say which languages failed, and why each did."""
        self.failures = dict(failures)
        told = "; ".join(f"{language}: {reason}" for language, reason in sorted(self.failures.items()))
        counted = "one language" if len(self.failures) == 1 else f"{len(self.failures)} languages"
        super().__init__(f"{counted} failed; what could be made of the others is whole. {told}")
