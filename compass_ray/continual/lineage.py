"""The line of versions of a language's adapter: which came from which, and which selections each was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from compass_ray.artifacts import Artifact, ArtifactError, RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.strategies import STRATEGIES

_VERSION = re.compile(r"v(\d{4})")


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


def version_after(run: RunDir, language: str) -> str:
    """The number of the next update: the first whose gate has not spoken, so that an unfinished one is gone on with."""
    numbers = [int(m.group(1)) for v in run.adapter_versions(language) if (m := _VERSION.fullmatch(v))]
    judged = [n for n in numbers if n == 1 or run.update(language, f"v{n:04d}").manifest()]
    return f"v{max(judged, default=0) + 1:04d}"


def parent(run: RunDir, language: str, version: str) -> str | None:
    """The version that this one was updated from, None for a first one."""
    found = _history(run, language, version).get("from")
    return None if found is None else str(found)


def selections(config: RunConfig, run: RunDir, language: str, version: str) -> tuple[Artifact, ...]:
    """Selections that a version was trained on, its ancestors' first; one that was trained anew has its own alone."""
    before = parent(run, language, version)
    if before is None:
        return (run.selection(version if not _VERSION.fullmatch(version) else config.serve.method, language),)
    own = run.selection(version, language)
    if STRATEGIES[_history(run, language, version)["strategy"]].anew:
        return (own,)
    return (*selections(config, run, language, before), own)


def _history(run: RunDir, language: str, version: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run.adapter(language, version).read_json("history.json")
    return found
