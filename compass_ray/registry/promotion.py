"""Change which version of a language is live: promote, roll back, pin; and serve the first versions of a run.

Key property: a version is verified before it is pointed at, and of two processes that change a language at the same
instant one is refused. The pointer carries its own history, so a roll-back needs nothing else. What is live of a pinned
language is moved by nobody until it is unpinned, other than by a promotion that says ``force``. COMPASS, section 3.3.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from compass_ray.artifacts import FIRST_VERSION, Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.registry.catalogue import live_versions
from compass_ray.registry.decision_log import append_decision
from compass_ray.registry.live_pointer import LivePointer, Pin, VersionedPointer, read_pointer, replace_pointer, require_pointer
from compass_ray.registry.names import AdapterName, Clock, RegistryError
from compass_ray.registry.versions import verify_servable


def promote(
    run: RunDir,
    language: str,
    version: str,
    *,
    reason: str = "asked for",
    evidence: Mapping[str, Any] = MappingProxyType({}),
    force: bool = False,
    clock: Clock = time.time,
) -> dict[str, Any]:
    """Make a version the one that is served, once it has been verified; it concludes a canary or shadow of it.

    ``evidence`` goes into the decision's record, such as the prompts seen and the gate's losses. ``force`` also moves a
    pinned language, which stays pinned, and replaces a pointer that is damaged, whose history is lost with it.

    Returns:
        The new live pointer.

    Raises:
        RegistryError: the version is missing, damaged, or made for another base model, the language is pinned, or another
            process changed what is live meanwhile.
    """
    found = _read_ignoring_damage(run, language) if force else read_pointer(run, language)
    manifest, now = verify_servable(run, AdapterName(language, version)), clock()
    if found.live and found.raw and (found.version, found.live.fingerprint) == (version, manifest.fingerprint):
        return dict(found.raw)
    if not force:
        _check_unpinned(run, language, found.live)
    past = (*found.live.history, found.live.to_past()) if found.live else ()
    live = _with_version(found.live or LivePointer(version=version), manifest, version, now, reason).with_changes(history=past)
    decision = {**evidence, "kind": "promotion", "time": now, "to": version, "reason": reason}
    if found.live is None and found.raw is not None:
        return _overwrite(run, language, live, decision)
    return replace_pointer(run, language, found, live, decision)


def roll_back(
    run: RunDir,
    language: str,
    *,
    version: str | None = None,
    reason: str = "asked for",
    evidence: Mapping[str, Any] = MappingProxyType({}),
    clock: Clock = time.time,
) -> dict[str, Any]:
    """Serve the version again that was live before this one; where ``version`` is given, only if that is the live one.

    ``evidence`` goes into the decision's record.

    Raises:
        RegistryError: there is none, it is no longer whole, the language is pinned, or another process changed what is live
            meanwhile.
    """
    found = read_pointer(run, language)
    if version is not None and found.version != version:
        raise RegistryError(f"{language}@{version} was to be rolled back, and {found.version} is live; look again and decide")
    if not found.live or not found.live.history:
        raise RegistryError(
            f"{language} has no earlier live version to roll back to; "
            f"promote one of its versions: {', '.join(run.adapter_versions(language)) or 'none'}"
        )
    _check_unpinned(run, language, found.live)
    *history, last = found.live.history
    manifest, now = verify_servable(run, AdapterName(language, last.version)), clock()
    live = _with_version(found.live, manifest, last.version, now, reason).with_changes(history=tuple(history))
    return replace_pointer(
        run, language, found, live, {**evidence, "kind": "rollback", "time": now, "to": last.version, "reason": reason}
    )


def pin(run: RunDir, language: str, *, reason: str = "asked for", clock: Clock = time.time) -> dict[str, Any]:
    """Let nobody change which version of the language is live until `unpin`; pinned already, it stays as it is.

    Raises:
        RegistryError: nothing is live, a canary answers a part of the requests, or another process changed what is live.
    """
    found, live = require_pointer(run, language)
    if live.canary:
        raise RegistryError(
            f"{language} cannot be pinned to {live.version} while {live.canary.version} answers {live.canary.share:.0%} of its "
            f"requests; promote {live.canary.version}, or end it: compass-ray adapters canary {run.uri} {language} --stop"
        )
    now = clock()
    decision = {"kind": "pin", "time": now, "to": live.version, "reason": reason}
    return replace_pointer(run, language, found, live.with_changes(pinned=live.pinned or Pin(since=now, reason=reason)), decision)


def unpin(run: RunDir, language: str, *, reason: str = "asked for", clock: Clock = time.time) -> dict[str, Any]:
    """Let the live version of the language change again.

    Raises:
        RegistryError: nothing is live, it is not pinned, or another process changed what is live meanwhile.
    """
    found, live = require_pointer(run, language)
    if not live.pinned:
        raise RegistryError(f"{language} is not pinned: {live.version} is live and may be replaced; there is nothing to unpin")
    decision = {"kind": "unpin", "time": clock(), "to": live.version, "reason": reason}
    return replace_pointer(run, language, found, live.with_changes(pinned=None), decision)


def require_unpinned(run: RunDir, language: str) -> None:
    """Stop before work whose outcome could not be served.

    Raises:
        RegistryError: the language is pinned, or its pointer is damaged.
    """
    _check_unpinned(run, language, read_pointer(run, language).live)


def promote_first_versions(config: RunConfig, run: RunDir) -> dict[str, str]:
    """Serve the first version of every language of a run that serves none yet.

    A language whose pointer or whose first version is damaged is left alone; the others are served.

    Returns:
        Why a language's first version is not served, by language.

    Raises:
        RegistryError: no language of the run has an adapter that can be served.
    """
    pointed, refused = run.live_pointer_etags(), {}
    for language in config.languages:
        if language not in pointed and run.adapter(language, FIRST_VERSION).manifest():
            try:
                promote(run, language, FIRST_VERSION, reason="first training")
            except RegistryError as error:
                refused[language] = str(error)
    if not live_versions(run, config.languages):
        why = next(iter(refused.values()), f"run 'compass-ray adapt --run {run.uri}' first")
        raise RegistryError(f"{run.uri} has no adapter to serve yet; {why}")
    return refused


def _with_version(live: LivePointer, manifest: Manifest, version: str, now: float, reason: str) -> LivePointer:
    return live.with_changes(version=version, fingerprint=manifest.fingerprint, since=now, reason=reason)


def _check_unpinned(run: RunDir, language: str, live: LivePointer | None) -> None:
    if live and live.pinned:
        raise RegistryError(
            f"{language} is pinned to {live.version} ({live.pinned.reason}), so it stays live; let it go with "
            f"'compass-ray adapters unpin {run.uri} {language}', or promote by hand with --force"
        )


def _read_ignoring_damage(run: RunDir, language: str) -> VersionedPointer:
    try:
        return read_pointer(run, language)
    except RegistryError:
        return VersionedPointer({}, None)


def _overwrite(run: RunDir, language: str, live: LivePointer, decision: Mapping[str, Any]) -> dict[str, Any]:
    """In the place of a pointer that nobody can read, which no other process waits for."""
    pointer = {"language": language, **live.model_dump(mode="json", exclude_none=True)}
    run.set_live(language, pointer)
    append_decision(run, {**decision, "language": language, "from": None})
    return pointer
