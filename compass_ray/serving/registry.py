"""Which adapter version of each language is live: list, promote, roll back; and the log of decisions.

Key property: the live pointer of a language is replaced in one step, after the version was verified against
its manifest and found to be made for the run's base model, so no reader ever meets a damaged or a foreign
adapter. Of two processes that change it at the same instant one is refused. The pointer carries its own history, so a
roll-back needs nothing else. Versions are immutable: new
weights get a new name (``sw@v0003``). COMPASS, section 3.3. It loads no model and knows no Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from compass_ray.artifacts import FIRST_VERSION, ArtifactError, LostRaceError, Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.models.location import model_identity
from compass_ray.serving import journal

Clock = Callable[[], float]
DECISIONS = "decisions.jsonl"
TARGET_VERSION = "target"
"""The adapter trained on a language's own rows alone, the router's first fallback."""
_HISTORY = 100


class RegistryError(ArtifactError):
    """A version that cannot be served, and why; the one that is live stays."""


@dataclass(frozen=True)
class AdapterName:
    """A version of a language's adapter, written ``sw@v0003``."""

    language: str
    version: str

    def __str__(self) -> str:
        """The name that requests and replies use."""
        return f"{self.language}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> AdapterName:
        """Read ``language@version``.

        Raises:
            ValueError: one of the two is missing.
        """
        language, at, version = text.partition("@")
        if not (language and at and version):
            raise ValueError(f"{text!r} is no adapter name; expected language@version, such as sw@v0001")
        return cls(language, version)


@dataclass(frozen=True)
class AdapterEntry:
    """One whole adapter version of a run."""

    name: AdapterName
    live: bool
    fingerprint: str
    finished: str
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Catalogue:
    """What a run has to answer with: the live version of each language, and every whole version."""

    live: Mapping[str, str]
    versions: Mapping[str, tuple[str, ...]]

    def has(self, name: AdapterName) -> bool:
        """Whether the version is whole."""
        return name.version in self.versions.get(name.language, ())


def append_decision(run: RunDir, record: Mapping[str, Any], clock: Clock = time.time) -> None:
    """Keep a decision: ``kind``, ``language``, what it was decided on; ``time`` (Unix seconds) if missing."""
    journal.append(run, DECISIONS, [{"time": clock(), **record}])


def decisions(run: RunDir) -> list[journal.Record]:
    """Every decision taken for the run, in order."""
    return journal.read(run, DECISIONS)


def served(run: RunDir, languages: Sequence[str] | None = None) -> dict[str, str]:
    """The live version of each language that has one; of all the run's languages when none are given."""
    codes = run.recorded().languages if languages is None else languages
    pointers = {code: run.live(code) for code in codes}
    return {code: str(pointer["version"]) for code, pointer in pointers.items() if pointer}


def catalogue(run: RunDir, languages: Sequence[str]) -> Catalogue:
    """What the run can answer with for the languages. Reads pointers and manifests."""
    versions = {code: tuple(run.adapter_versions(code)) for code in languages}
    return Catalogue(live=served(run, languages), versions={code: found for code, found in versions.items() if found})


def entries(run: RunDir, languages: Sequence[str]) -> list[AdapterEntry]:
    """Every whole adapter version of the languages."""
    return [_entry(run, code, version) for code in languages for version in run.adapter_versions(code)]


def promote(
    run: RunDir,
    language: str,
    version: str,
    *,
    reason: str = "asked for",
    evidence: Mapping[str, Any] = MappingProxyType({}),
    clock: Clock = time.time,
) -> dict[str, Any]:
    """Make a version the one that is served, once it has been verified.

    ``evidence`` goes into the decision's record, such as the prompts seen and the gate's losses.

    Returns:
        The new live pointer.

    Raises:
        RegistryError: the version is missing, damaged, or made for another base model, or another process changed what is
            live meanwhile.
    """
    pointer = run.live(language)
    manifest = _fit_to_serve(run, AdapterName(language, version))
    if pointer and pointer["version"] == version and pointer.get("fingerprint") == manifest.fingerprint:
        return pointer
    history = [*pointer.get("history", ()), _past(pointer)] if pointer else []
    return _switch(run, _pointer(language, version, manifest, history, reason, clock()), pointer, "promotion", evidence)


def adopt(config: RunConfig, run: RunDir) -> None:
    """Serve the first version of every language of a run that serves none yet.

    Raises:
        RegistryError: no language of the run has an adapter.
    """
    for language in config.languages:
        if run.live(language) is None and run.adapter(language, FIRST_VERSION).manifest():
            promote(run, language, FIRST_VERSION, reason="first training")
    if not served(run, config.languages):
        raise RegistryError(f"{run.uri} has no adapter to serve yet; run 'compass-ray adapt --run {run.uri}' first")


def roll_back(run: RunDir, language: str, *, reason: str = "asked for", clock: Clock = time.time) -> dict[str, Any]:
    """Serve the version again that was live before this one.

    Raises:
        RegistryError: there is none, it is no longer whole, or another process changed what is live meanwhile.
    """
    pointer = run.live(language)
    if not pointer or not pointer.get("history"):
        raise RegistryError(
            f"{language} has no earlier live version to roll back to; "
            f"its versions are {run.adapter_versions(language)}: promote one of them"
        )
    *history, last = pointer["history"]
    manifest = _fit_to_serve(run, AdapterName(language, last["version"]))
    return _switch(run, _pointer(language, last["version"], manifest, history, reason, clock()), pointer, "rollback")


def _entry(run: RunDir, language: str, version: str) -> AdapterEntry:
    manifest = run.adapter(language, version).require()
    pointer = run.live(language)
    return AdapterEntry(
        name=AdapterName(language, version),
        live=bool(pointer and pointer["version"] == version),
        fingerprint=manifest.fingerprint,
        finished=str(manifest.provenance.get("finished", "")),
        metrics=manifest.metrics,
    )


def _fit_to_serve(run: RunDir, name: AdapterName) -> Manifest:
    artifact = run.adapter(name.language, name.version)
    try:
        manifest = artifact.verify()
    except ArtifactError as error:
        known = ", ".join(run.adapter_versions(name.language)) or "none"
        raise RegistryError(f"{name} cannot be served: {error}. Whole versions of {name.language}: {known}") from None
    train = run.recorded().train
    expected, made_for = model_identity(train.base_model, train.revision), manifest.config.get("base_model")
    if made_for != expected:
        raise RegistryError(
            f"{name} cannot be served: it was trained on base model {made_for}, this run serves {expected}; "
            f"train it again in this run"
        )
    return manifest


def _pointer(
    language: str, version: str, manifest: Manifest, history: list[dict[str, Any]], reason: str, now: float
) -> dict[str, Any]:
    return {
        "language": language,
        "version": version,
        "fingerprint": manifest.fingerprint,
        "since": now,
        "reason": reason,
        "history": history[-_HISTORY:],
    }


def _past(pointer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: pointer.get(key) for key in ("version", "fingerprint", "since", "reason")}


def _switch(
    run: RunDir,
    pointer: dict[str, Any],
    previous: Mapping[str, Any] | None,
    kind: str,
    evidence: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    try:
        run.replace_live(pointer["language"], pointer, previous)
    except LostRaceError:
        live = (run.live(pointer["language"]) or {}).get("version")
        raise RegistryError(
            f"{pointer['language']} was changed meanwhile by another process: {live} is live now, and {pointer['version']} is "
            f"not; look at the run's versions and decide again"
        ) from None
    append_decision(
        run,
        {
            **evidence,
            "kind": kind,
            "language": pointer["language"],
            "time": pointer["since"],
            "from": previous["version"] if previous else None,
            "to": pointer["version"],
            "reason": pointer["reason"],
        },
    )
    return pointer
