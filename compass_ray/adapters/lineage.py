"""The lineage of adapter versions: which version each was updated from, and which selections it was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from compass_ray.artifacts import Artifact, ArtifactError, RunDir
from compass_ray.config import RunConfig

VERSION_PATTERN = re.compile(r"v(\d{4})")
"""A version of the served line; adapters of other methods are named after them."""


@dataclass(frozen=True)
class Lineage:
    """Where a version came from."""

    parent: str | None
    """The version it was updated from, None for a first one."""
    trained_on: Mapping[str, str]
    """Name and fingerprint of the selections of its own training."""
    base_model: str
    commit: str | None
    """Of this software, where it was known."""


def parent_version(run: RunDir, language: str, version: str) -> str | None:
    """The version that this one was updated from, None for a first one."""
    found = run.adapter(language, version).read_json("history.json").get("from")
    return None if found is None else str(found)


def lineage_selections(config: RunConfig, run: RunDir, language: str, version: str) -> tuple[Artifact, ...]:
    """Selections that a version was trained on, its ancestors' first; one that was trained anew has its own alone."""
    before = parent_version(run, language, version)
    if before is None:
        return (run.selection(version if not VERSION_PATTERN.fullmatch(version) else config.serve.method, language),)
    own = run.selection(version, language)
    anew = run.adapter(language, version).read_json("history.json").get("anew", False)
    return (own,) if anew else (*lineage_selections(config, run, language, before), own)


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
