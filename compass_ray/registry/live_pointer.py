"""The live pointer of a language: live version, history, canary, shadow and pin.

All of it is one small file. It is replaced atomically, and only if it still has the content that the writer read. Readers never
see a partial change, and of two concurrent writers one gets an error. Missing fields, as in pointers of older releases, get
their defaults; unknown fields of newer releases are preserved. No adapter is verified here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compass_ray.artifacts import ArtifactError, ConflictError, RunDir
from compass_ray.records.decisions import ServingRecord
from compass_ray.registry.decision_log import append_decision
from compass_ray.registry.names import RegistryError

_HISTORY = 100

Version = Annotated[str, Field(min_length=1, pattern=r"^[^/\\@\s.][^/\\@\s]*$")]


@dataclass(frozen=True)
class Canary:
    """A version that answers ``share`` in (0, 1) of a language's requests before it is live."""

    version: Version
    share: Annotated[float, Field(gt=0.0, lt=1.0)]


class _PointerModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class PastVersion(_PointerModel):
    """A version that was live, with the start time (Unix seconds) and the reason."""

    version: Version
    fingerprint: str | None = None
    since: float | None = None
    reason: str | None = None


class Pin(_PointerModel):
    """Why the live version may not change, and since when (Unix seconds)."""

    since: float = 0.0
    reason: str = ""


class LivePointer(PastVersion):
    """The live version of a language, and the earlier ones, latest last."""

    history: tuple[PastVersion, ...] = ()
    pinned: Pin | None = None
    canary: Canary | None = None
    shadow: Version | None = None

    def to_past(self) -> PastVersion:
        """The history entry of this pointer."""
        return PastVersion(version=self.version, fingerprint=self.fingerprint, since=self.since, reason=self.reason)

    def with_changes(self, **changes: Any) -> LivePointer:
        """A copy with changed fields. A live version is neither its own canary nor its own shadow."""
        new = self.model_copy(update=changes)
        canary = None if new.canary and new.canary.version == new.version else new.canary
        shadow = None if new.shadow == new.version else new.shadow
        return new.model_copy(update={"canary": canary, "shadow": shadow, "history": new.history[-_HISTORY:]})


@dataclass(frozen=True)
class VersionedPointer:
    """A pointer as it was read: its raw content, which a writer presents to replace it, and its parsed form."""

    raw: Mapping[str, Any] | None
    live: LivePointer | None

    @property
    def version(self) -> str | None:
        """The live version, or None."""
        return self.live.version if self.live else None


def read_pointer(run: RunDir, language: str) -> VersionedPointer:
    """The pointer of a language.

    Raises:
        RegistryError: it is damaged.
    """
    try:
        raw = run.live(language)
        return VersionedPointer(raw, None if raw is None else LivePointer.model_validate(raw))
    except (ArtifactError, ValidationError) as error:
        why = _first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise RegistryError(
            f"The live pointer of {language} cannot be read ({why}). If it is damaged, replace it: "
            f"compass-ray adapters promote {run.shown_uri} {language} VERSION --force"
        ) from None


def require_pointer(run: RunDir, language: str) -> tuple[VersionedPointer, LivePointer]:
    """The pointer of a language that has a live version.

    Raises:
        RegistryError: nothing is live, or the pointer is damaged.
    """
    pointer = read_pointer(run, language)
    if pointer.live is None:
        known = ", ".join(run.adapter_versions(language)) or "none"
        raise RegistryError(
            f"{language} has no live version. Promote one first: compass-ray adapters promote {run.shown_uri} {language} VERSION "
            f"(complete versions: {known})"
        )
    return pointer, pointer.live


def replace_pointer(
    run: RunDir, language: str, expected: VersionedPointer, live: LivePointer, decision: ServingRecord
) -> dict[str, Any]:
    """Replace the ``expected`` pointer and log the decision. An equal pointer is left as it is and nothing is logged.

    Raises:
        RegistryError: another process changed the pointer since it was read. Its change is kept.
    """
    if expected.raw is not None and live == expected.live:
        return dict(expected.raw)
    pointer = {"language": language, **live.model_dump(mode="json", exclude_none=True)}
    try:
        run.replace_live(language, pointer, expected.raw)
    except ConflictError:
        raise RegistryError(
            f"Conflict: another process changed {language}; {read_pointer(run, language).version} is live now. The "
            f"{decision.kind} of {decision.to_version} was not applied. "
            f"Run 'compass-ray adapters list {run.shown_uri}' and try again."
        ) from None
    append_decision(run, decision)
    return pointer


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'pointer'}: {problem['msg']}"
