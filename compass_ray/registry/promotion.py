"""Promote, roll back and pin the live version of a language, and promote the first versions of a run.

A version is verified before it becomes live, and of two concurrent changes to a language one is refused. The pointer contains its
own history, so a rollback needs no other file. The live version of a pinned language changes only by a promotion with ``force``.
COMPASS, section 3.3.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from compass_ray.artifacts import FIRST_VERSION, Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.records.checks import StatTestRecord
from compass_ray.records.decisions import PinRecord, PromotionRecord, RollbackRecord, UnpinRecord
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
    reason: str = "requested",
    evidence: Sequence[StatTestRecord] | None = None,
    force: bool = False,
    clock: Clock = time.time,
) -> dict[str, Any]:
    """Verify a version and make it live. This ends its canary or shadow.

    ``evidence``, the tests that support the promotion, is added to the decision record. ``force`` also promotes in a pinned
    language, which stays pinned, and replaces a damaged pointer, whose history is lost.

    Returns:
        The new live pointer.

    Raises:
        RegistryError: the version is missing, damaged, or trained on another base model, the language is pinned, or another
            process changed the pointer.
    """
    pointer = _read_ignoring_damage(run, language) if force else read_pointer(run, language)
    manifest, now = verify_servable(run, AdapterName(language, version)), clock()
    if pointer.live and pointer.raw and (pointer.version, pointer.live.fingerprint) == (version, manifest.fingerprint):
        return dict(pointer.raw)
    if not force:
        _check_unpinned(run, language, pointer.live)
    past = (*pointer.live.history, pointer.live.to_past()) if pointer.live else ()
    live = _with_version(pointer.live or LivePointer(version=version), manifest, version, now, reason).with_changes(history=past)
    decision = PromotionRecord(
        time=now,
        language=language,
        from_version=pointer.version,
        to_version=version,
        reason=reason,
        tests=None if evidence is None else tuple(evidence),
    )
    if pointer.live is None and pointer.raw is not None:
        return _overwrite(run, language, live, decision)
    return replace_pointer(run, language, pointer, live, decision)


def roll_back(
    run: RunDir,
    language: str,
    *,
    version: str | None = None,
    reason: str = "requested",
    evidence: Sequence[StatTestRecord] | None = None,
    clock: Clock = time.time,
) -> dict[str, Any]:
    """Make the previous live version live again. If ``version`` is given, only if it is the live one.

    ``evidence``, the tests that support the rollback, is added to the decision record.

    Raises:
        RegistryError: there is no earlier version, it is no longer complete, the language is pinned, or another process
            changed the pointer.
    """
    pointer = read_pointer(run, language)
    if version is not None and pointer.version != version:
        raise RegistryError(f"{language}@{version} is not live; {pointer.version} is. List the versions and decide again.")
    if not pointer.live or not pointer.live.history:
        raise RegistryError(
            f"{language} has no earlier live version to roll back to. "
            f"Promote one of its versions: {', '.join(run.adapter_versions(language)) or 'none'}."
        )
    _check_unpinned(run, language, pointer.live)
    *history, last = pointer.live.history
    manifest, now = verify_servable(run, AdapterName(language, last.version)), clock()
    live = _with_version(pointer.live, manifest, last.version, now, reason).with_changes(history=tuple(history))
    decision = RollbackRecord(
        time=now,
        language=language,
        from_version=pointer.version,
        to_version=last.version,
        reason=reason,
        tests=None if evidence is None else tuple(evidence),
    )
    return replace_pointer(run, language, pointer, live, decision)


def pin(run: RunDir, language: str, *, reason: str = "requested", clock: Clock = time.time) -> dict[str, Any]:
    """Keep the live version of the language until `unpin`. An existing pin is kept as it is.

    Raises:
        RegistryError: nothing is live, the language has a canary, or another process changed the pointer.
    """
    pointer, live = require_pointer(run, language)
    if live.canary:
        raise RegistryError(
            f"{language} cannot be pinned to {live.version} while the canary {live.canary.version} answers "
            f"{live.canary.share:.0%} of its requests. Promote {live.canary.version}, or stop it: "
            f"compass-ray adapters canary {run.shown_uri} {language} --stop"
        )
    now = clock()
    decision = PinRecord(time=now, language=language, from_version=live.version, to_version=live.version, reason=reason)
    return replace_pointer(
        run, language, pointer, live.with_changes(pinned=live.pinned or Pin(since=now, reason=reason)), decision
    )


def unpin(run: RunDir, language: str, *, reason: str = "requested", clock: Clock = time.time) -> dict[str, Any]:
    """Allow the live version of the language to change again.

    Raises:
        RegistryError: nothing is live, the language is not pinned, or another process changed the pointer.
    """
    pointer, live = require_pointer(run, language)
    if not live.pinned:
        raise RegistryError(f"{language} is not pinned; its live version {live.version} can be replaced.")
    decision = UnpinRecord(time=clock(), language=language, from_version=live.version, to_version=live.version, reason=reason)
    return replace_pointer(run, language, pointer, live.with_changes(pinned=None), decision)


def require_unpinned(run: RunDir, language: str) -> None:
    """Check, before starting work, that its result could be promoted.

    Raises:
        RegistryError: the language is pinned, or its pointer is damaged.
    """
    _check_unpinned(run, language, read_pointer(run, language).live)


def promote_first_versions(config: RunConfig, run: RunDir) -> dict[str, str]:
    """Promote the first version of every language of a run that has no live version.

    A language with a damaged pointer or a damaged first version is skipped; the others are promoted.

    Returns:
        Why a language's first version was not promoted, by language.

    Raises:
        RegistryError: no language of the run has an adapter that can be served.
    """
    etags, refused = run.live_pointer_etags(), {}
    for language in config.languages:
        if language not in etags and run.adapter(language, FIRST_VERSION).manifest():
            try:
                promote(run, language, FIRST_VERSION, reason="first training")
            except RegistryError as error:
                refused[language] = str(error)
    if not live_versions(run, config.languages):
        why = next(iter(refused.values()), f"Run 'compass-ray adapt --run {run.shown_uri}' first.")
        raise RegistryError(f"{run.shown_uri} has no adapter to serve yet. {why}")
    return refused


def _with_version(live: LivePointer, manifest: Manifest, version: str, now: float, reason: str) -> LivePointer:
    return live.with_changes(version=version, fingerprint=manifest.fingerprint, since=now, reason=reason)


def _check_unpinned(run: RunDir, language: str, live: LivePointer | None) -> None:
    if live and live.pinned:
        raise RegistryError(
            f"{language} is pinned to {live.version} ({live.pinned.reason}), so its live version cannot change. "
            f"Unpin it with 'compass-ray adapters unpin {run.shown_uri} {language}', or promote with --force."
        )


def _read_ignoring_damage(run: RunDir, language: str) -> VersionedPointer:
    try:
        return read_pointer(run, language)
    except RegistryError:
        return VersionedPointer({}, None)


def _overwrite(run: RunDir, language: str, live: LivePointer, decision: PromotionRecord) -> dict[str, Any]:
    """Replace an unreadable pointer, without a check for concurrent changes."""
    pointer = {"language": language, **live.model_dump(mode="json", exclude_none=True)}
    run.set_live(language, pointer)
    append_decision(run, decision)
    return pointer
