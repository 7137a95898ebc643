"""The line of versions of a language's adapter: which came from which, and which selections each was trained on."""

from __future__ import annotations

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.watched_clusters.line import VERSION_PATTERN, lineage_selections, parent_version

__all__ = ["lineage_selections", "live_version", "next_version", "parent_version"]


def live_version(run: RunDir, language: str) -> str:
    """The version that is served.

    Raises:
        ArtifactError: none is.
    """
    pointer = run.live(language)
    if pointer is None:
        raise ArtifactError(
            f"{language} serves no adapter yet; promote one: compass-ray adapters promote {run.uri} {language} v0001"
        )
    return str(pointer["version"])


def next_version(run: RunDir, language: str) -> str:
    """The number of the next update: the first whose gate has not spoken, so that an unfinished one is gone on with."""
    numbers = [int(m.group(1)) for v in run.adapter_versions(language) if (m := VERSION_PATTERN.fullmatch(v))]
    judged = [n for n in numbers if n == 1 or run.update(language, f"v{n:04d}").manifest()]
    return f"v{max(judged, default=0) + 1:04d}"
