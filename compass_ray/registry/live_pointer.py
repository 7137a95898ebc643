"""The live pointer of a language: what is served, what was, what is tried beside it, and whether it may change.

Key property: all of it is one small file that is replaced in one step and only while it says what was read, so no reader
sees half a change and of two writers one is refused. A pointer that lacks a field, as those of older versions do, is read
with the field's default; what newer versions add is kept. It judges no adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compass_ray.artifacts import ArtifactError, ConflictError, RunDir
from compass_ray.registry.decision_log import append_decision
from compass_ray.registry.names import RegistryError

_HISTORY = 100

Version = Annotated[str, Field(min_length=1, pattern=r"^[^/@\s]+$")]


@dataclass(frozen=True)
class Canary:
    """A version that answers ``share`` in (0, 1) of a language's requests before it is live."""

    version: Version
    share: Annotated[float, Field(gt=0.0, lt=1.0)]


class _PointerModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class PastVersion(_PointerModel):
    """A version that was live, since when (Unix seconds) and why."""

    version: Version
    fingerprint: str | None = None
    since: float | None = None
    reason: str | None = None


class Pin(_PointerModel):
    """Why nobody may change what is live, and since when (Unix seconds)."""

    since: float = 0.0
    reason: str = ""


class LivePointer(PastVersion):
    """What a language serves, and what came before, the latest last."""

    history: tuple[PastVersion, ...] = ()
    pinned: Pin | None = None
    canary: Canary | None = None
    shadow: Version | None = None

    def to_past(self) -> PastVersion:
        """What the history keeps of it."""
        return PastVersion(version=self.version, fingerprint=self.fingerprint, since=self.since, reason=self.reason)

    def with_changes(self, **changes: Any) -> LivePointer:
        """The same but for some fields; a version that is live is neither its own canary nor its own shadow."""
        new = self.model_copy(update=changes)
        canary = None if new.canary and new.canary.version == new.version else new.canary
        shadow = None if new.shadow == new.version else new.shadow
        return new.model_copy(update={"canary": canary, "shadow": shadow, "history": new.history[-_HISTORY:]})


@dataclass(frozen=True)
class VersionedPointer:
    """A pointer as it was read: its text, by which a writer shows what it had read, and what it says."""

    raw: Mapping[str, Any] | None
    live: LivePointer | None

    @property
    def version(self) -> str | None:
        """The version that is served, None where none is."""
        return self.live.version if self.live else None


def read_pointer(run: RunDir, language: str) -> VersionedPointer:
    """Read the pointer of a language.

    Raises:
        RegistryError: it is damaged.
    """
    try:
        raw = run.live(language)
        return VersionedPointer(raw, None if raw is None else LivePointer.model_validate(raw))
    except (ArtifactError, ValidationError) as error:
        why = _first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise RegistryError(
            f"the live pointer of {language} cannot be read ({why}); if it is damaged, put another in its place: "
            f"compass-ray adapters promote {run.uri} {language} VERSION --force"
        ) from None


def require_pointer(run: RunDir, language: str) -> tuple[VersionedPointer, LivePointer]:
    """The pointer of a language that serves a version.

    Raises:
        RegistryError: it serves none, or its pointer is damaged.
    """
    found = read_pointer(run, language)
    if found.live is None:
        known = ", ".join(run.adapter_versions(language)) or "none"
        raise RegistryError(
            f"{language} serves no version yet; promote one first: compass-ray adapters promote {run.uri} {language} VERSION "
            f"(whole versions: {known})"
        )
    return found, found.live


def replace_pointer(
    run: RunDir, language: str, found: VersionedPointer, live: LivePointer, decision: Mapping[str, Any]
) -> dict[str, Any]:
    """Put a pointer in the place of the one found, and keep the decision; one that says the same is left as it is.

    Raises:
        RegistryError: another process has changed it since it was read, and its change stays.
    """
    if found.raw is not None and live == found.live:
        return dict(found.raw)
    pointer = {"language": language, **live.model_dump(mode="json", exclude_none=True)}
    try:
        run.replace_live(language, pointer, found.raw)
    except ConflictError:
        raise RegistryError(
            f"{language} was changed meanwhile by another process: {read_pointer(run, language).version} is live now, and this "
            f"{decision['kind']} ({decision['to']}) was not made; look at the run's versions and decide again"
        ) from None
    append_decision(run, {**decision, "language": language, "from": found.version})
    return pointer


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'pointer'}: {problem['msg']}"
