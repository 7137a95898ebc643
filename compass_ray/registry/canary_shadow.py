"""Try a version on a language's traffic before it is live: a canary answers a share of it, a shadow a copy of it.

Key property: both are verified as a promotion is, and stand in the live pointer, so that every replica follows them as it
follows what is live. Promoting the version concludes its trial. It routes nothing and compares nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError
from compass_ray.registry.live_pointer import Canary, LivePointer, VersionedPointer, replace_pointer, require_pointer
from compass_ray.registry.names import AdapterName, Clock, RegistryError
from compass_ray.registry.versions import verify_servable


def set_canary(
    run: RunDir, language: str, version: str, share: float, *, reason: str = "asked for", clock: Clock = time.time
) -> dict[str, Any]:
    """Let a version answer ``share`` of a language's requests; again with another share to widen or narrow it.

    Returns:
        The new live pointer.

    Raises:
        ConfigError: the share is not between 0 and 1.
        RegistryError: the version cannot be served or is live, nothing is live, the language is pinned or has another
            canary, or another process changed what is live meanwhile.
    """
    if not 0 < share < 1:
        raise ConfigError(f"a canary's share is {share:g}; give one between 0 and 1, such as 0.1, or promote the version")
    found, live = _require_candidate(run, language, version)
    if live.pinned:
        raise RegistryError(
            f"{language} is pinned to {live.version} ({live.pinned.reason}), so nothing else answers its requests; let it go "
            f"with 'compass-ray adapters unpin {run.uri} {language}', or try {version} as a shadow"
        )
    if live.canary and live.canary.version != version:
        raise RegistryError(
            f"{language} has the canary {live.canary.version} already; promote it, or end it: "
            f"compass-ray adapters canary {run.uri} {language} --stop"
        )
    decision = {"kind": "canary", "time": clock(), "to": version, "share": share, "reason": reason}
    return replace_pointer(run, language, found, live.with_changes(canary=Canary(version, share)), decision)


def stop_canary(
    run: RunDir,
    language: str,
    *,
    version: str | None = None,
    reason: str = "asked for",
    evidence: Mapping[str, Any] = MappingProxyType({}),
    clock: Clock = time.time,
) -> dict[str, Any]:
    """Let the live version answer all requests again; where ``version`` is given, only if that is the canary.

    ``evidence`` goes into the decision's record.

    Raises:
        RegistryError: there is no canary, or another process changed what is live meanwhile.
    """
    found, live = require_pointer(run, language)
    if live.canary is None:
        raise RegistryError(f"{language} has no canary: {live.version} answers all its requests; there is nothing to end")
    if version is not None and live.canary.version != version:
        raise RegistryError(
            f"the trial of {language}@{version} was to end, and {live.canary.version} is tried; look again and decide"
        )
    decision = {**evidence, "kind": "canary ended", "time": clock(), "to": live.canary.version, "reason": reason}
    return replace_pointer(run, language, found, live.with_changes(canary=None), decision)


def set_shadow(
    run: RunDir, language: str, version: str, *, reason: str = "asked for", clock: Clock = time.time
) -> dict[str, Any]:
    """Let a version answer a copy of each request of a language, which no client sees, in the place of a shadow before.

    Raises:
        RegistryError: the version cannot be served or is live, nothing is live, or another process changed what is live
            meanwhile.
    """
    found, live = _require_candidate(run, language, version)
    decision = {"kind": "shadow", "time": clock(), "to": version, "reason": reason}
    return replace_pointer(run, language, found, live.with_changes(shadow=version), decision)


def stop_shadow(run: RunDir, language: str, *, reason: str = "asked for", clock: Clock = time.time) -> dict[str, Any]:
    """Copy requests no longer.

    Raises:
        RegistryError: there is no shadow, or another process changed what is live meanwhile.
    """
    found, live = require_pointer(run, language)
    if live.shadow is None:
        raise RegistryError(f"{language} has no shadow: its requests go to {live.version} alone; there is nothing to end")
    decision = {"kind": "shadow ended", "time": clock(), "to": live.shadow, "reason": reason}
    return replace_pointer(run, language, found, live.with_changes(shadow=None), decision)


def _require_candidate(run: RunDir, language: str, version: str) -> tuple[VersionedPointer, LivePointer]:
    found, live = require_pointer(run, language)
    if live.version == version:
        raise RegistryError(f"{language}@{version} is live and answers every request already; name a version that is not")
    verify_servable(run, AdapterName(language, version))
    return found, live
