"""The lineage of adapter versions: which version each was updated from, and which selections it was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from compass_ray.artifacts import Artifact, ArtifactError, RunDir
from compass_ray.config import RunConfig
from compass_ray.records.training import HistoryRecord

VERSION_PATTERN = re.compile(r"v(\d{4})")
"""A version of the served lineage; adapters of other methods have the method's name."""


@dataclass(frozen=True)
class Lineage:
    """The origin of a version."""

    parent: str | None
    """The version it was updated from, None for the first one."""
    trained_on: Mapping[str, str]
    """Name and fingerprint of the selections of its own training."""
    base_model: str
    commit: str | None
    """Git commit of this software, None if unknown."""


def parent_version(run: RunDir, language: str, version: str) -> str | None:
    """The version from which this one was updated, None for the first one."""
    return HistoryRecord.read(run.adapter(language, version)).parent


def lineage_selections(config: RunConfig, run: RunDir, language: str, version: str) -> tuple[Artifact, ...]:
    """Selections that a version was trained on, its ancestors' first. A version trained from scratch has only its own."""
    parent = parent_version(run, language, version)
    if parent is None:
        return (run.selection(version if not VERSION_PATTERN.fullmatch(version) else config.serve.method, language),)
    own = run.selection(version, language)
    from_scratch = HistoryRecord.read(run.adapter(language, version)).from_scratch
    return (own,) if from_scratch else (*lineage_selections(config, run, language, parent), own)


def live_version(run: RunDir, language: str) -> str:
    """The live version of a language.

    Raises:
        ArtifactError: no version is live.
    """
    pointer = run.live(language)
    if pointer is None:
        raise ArtifactError(
            f"{language} has no live adapter; promote one: compass-ray adapters promote {run.shown_uri} {language} v0001"
        )
    return str(pointer["version"])


def next_version(run: RunDir, language: str) -> str:
    """The version of the next update: the first without a gate result, so that an unfinished update continues."""
    numbers = [int(m.group(1)) for v in run.adapter_versions(language) if (m := VERSION_PATTERN.fullmatch(v))]
    completed = [n for n in numbers if n == 1 or run.update(language, f"v{n:04d}").manifest()]
    return f"v{max(completed, default=0) + 1:04d}"
