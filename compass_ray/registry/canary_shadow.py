"""Canary and shadow versions: a canary answers a share of a language's requests, a shadow answers copies of them.

Both are verified like a promotion and stored in the live pointer, so replicas follow them the same way. Promoting a version
ends its canary or shadow. Routing and comparison happen elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError
from compass_ray.records.checks import StatTestRecord
from compass_ray.records.decisions import CanaryEndedRecord, CanaryRecord, ShadowEndedRecord, ShadowRecord
from compass_ray.registry.live_pointer import Canary, LivePointer, VersionedPointer, replace_pointer, require_pointer
from compass_ray.registry.names import AdapterName, Clock, RegistryError
from compass_ray.registry.versions import verify_servable


def set_canary(
    run: RunDir, language: str, version: str, share: float, *, reason: str = "requested", clock: Clock = time.time
) -> dict[str, Any]:
    """Let a version answer ``share`` of a language's requests. Call it again with another share to widen or narrow it.

    Returns:
        The new live pointer.

    Raises:
        ConfigError: the share is not between 0 and 1.
        RegistryError: the version cannot be served or is live, nothing is live, the language is pinned or has another
            canary, or another process changed the pointer.
    """
    if not 0 < share < 1:
        raise ConfigError(f"Invalid canary share {share:g}. Give a share between 0 and 1, such as 0.1, or promote the version.")
    pointer, live = _require_candidate(run, language, version)
    if live.pinned:
        raise RegistryError(
            f"{language} is pinned to {live.version} ({live.pinned.reason}), so it cannot have a canary. "
            f"Unpin it with 'compass-ray adapters unpin {run.shown_uri} {language}', or make {version} a shadow."
        )
    if live.canary and live.canary.version != version:
        raise RegistryError(
            f"{language} already has the canary {live.canary.version}. Promote it, or stop it: "
            f"compass-ray adapters canary {run.shown_uri} {language} --stop"
        )
    decision = CanaryRecord(
        time=clock(), language=language, from_version=live.version, to_version=version, share=share, reason=reason
    )
    return replace_pointer(run, language, pointer, live.with_changes(canary=Canary(version, share)), decision)


def stop_canary(
    run: RunDir,
    language: str,
    *,
    version: str | None = None,
    reason: str = "requested",
    evidence: Sequence[StatTestRecord] | None = None,
    clock: Clock = time.time,
) -> dict[str, Any]:
    """Let the live version answer all requests again. If ``version`` is given, only stop that canary.

    ``evidence``, the tests that support the decision, is added to its record.

    Raises:
        RegistryError: there is no such canary, or another process changed the pointer.
    """
    pointer, live = require_pointer(run, language)
    if live.canary is None:
        raise RegistryError(f"{language} has no canary to stop; {live.version} answers all its requests.")
    if version is not None and live.canary.version != version:
        raise RegistryError(
            f"{language}@{version} is not the canary; {live.canary.version} is. List the versions and decide again."
        )
    decision = CanaryEndedRecord(
        time=clock(),
        language=language,
        from_version=live.version,
        to_version=live.canary.version,
        reason=reason,
        tests=None if evidence is None else tuple(evidence),
    )
    return replace_pointer(run, language, pointer, live.with_changes(canary=None), decision)


def set_shadow(
    run: RunDir, language: str, version: str, *, reason: str = "requested", clock: Clock = time.time
) -> dict[str, Any]:
    """Let a version answer a copy of each request of a language. No client sees the copies. Replaces an earlier shadow.

    Raises:
        RegistryError: the version cannot be served or is live, nothing is live, or another process changed the pointer.
    """
    pointer, live = _require_candidate(run, language, version)
    decision = ShadowRecord(time=clock(), language=language, from_version=live.version, to_version=version, reason=reason)
    return replace_pointer(run, language, pointer, live.with_changes(shadow=version), decision)


def stop_shadow(run: RunDir, language: str, *, reason: str = "requested", clock: Clock = time.time) -> dict[str, Any]:
    """Stop copying requests to the shadow.

    Raises:
        RegistryError: there is no shadow, or another process changed the pointer.
    """
    pointer, live = require_pointer(run, language)
    if live.shadow is None:
        raise RegistryError(f"{language} has no shadow to stop; its requests go only to {live.version}.")
    decision = ShadowEndedRecord(
        time=clock(), language=language, from_version=live.version, to_version=live.shadow, reason=reason
    )
    return replace_pointer(run, language, pointer, live.with_changes(shadow=None), decision)


def _require_candidate(run: RunDir, language: str, version: str) -> tuple[VersionedPointer, LivePointer]:
    pointer, live = require_pointer(run, language)
    if live.version == version:
        raise RegistryError(f"{language}@{version} is live and already answers every request. Name another version.")
    verify_servable(run, AdapterName(language, version))
    return pointer, live
