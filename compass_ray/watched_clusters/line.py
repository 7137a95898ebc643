"""Where an adapter version came from: the version before it, and the selections that its line was trained on."""

from __future__ import annotations

import re

from compass_ray.artifacts import Artifact, RunDir
from compass_ray.config import RunConfig

VERSION_PATTERN = re.compile(r"v(\d{4})")
"""A version of the served line; adapters of other methods are named after them."""


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
