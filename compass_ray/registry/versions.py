"""The adapter versions of a run: lineage, scores, and whether each may be served.

A version may be served only if every file matches its manifest and it was trained on the run's base model. Published versions
never change: new weights get a new version name (``sw@v0003``). Loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compass_ray.adapters.lineage import Lineage
from compass_ray.artifacts import FIRST_VERSION, ArtifactError, Manifest, RunDir
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import model_identity, resolve_model
from compass_ray.records.updates import GateRecord
from compass_ray.registry.live_pointer import LivePointer, read_pointer
from compass_ray.registry.names import AdapterName, RegistryError, check_name

_PARENT = "parent"
"""Input name, in an update's manifest, of the version it was trained from."""


@dataclass(frozen=True)
class AdapterEntry:
    """One complete adapter version of a run."""

    name: AdapterName
    live: bool
    fingerprint: str
    finished: str
    metrics: Mapping[str, Any]
    lineage: Lineage = field(default_factory=lambda: Lineage(None, {}, "", None))
    canary: float | None = None
    """The share of requests that it answers as a canary."""
    shadow: bool = False
    pinned: bool = False
    """Whether it is live and pinned."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """The gate's measurements and verdict for an update; empty for a first version."""
    accuracy: float | None = None
    """Accuracy on the language's test set, if evaluated."""
    chance: float | None = None
    """Accuracy of a choice at random; None for an evaluation of a former version."""
    problem: str = ""
    """Why details are missing."""


def list_versions(run: RunDir, languages: Sequence[str]) -> list[AdapterEntry]:
    """Every complete adapter version of the languages.

    A version with a damaged manifest, and all versions of a language with a damaged pointer, have a ``problem``.
    """
    complete = run.complete_adapters()
    return [entry for code in languages for entry in _of_language(run, code, complete.get(code, ()))]


def verify_servable(run: RunDir, name: AdapterName) -> Manifest:
    """The manifest of a version, after all its files were verified against it.

    Raises:
        RegistryError: the version is missing, damaged, or trained on another base model.
    """
    check_name(name)
    try:
        manifest = run.adapter(name.language, name.version).verify()
    except ArtifactError as error:
        complete = run.complete_adapters().get(name.language, ())
        why = error if name.version in (*complete, FIRST_VERSION) else "there is no such complete version"
        others = ", ".join(v for v in complete if v != name.version) or "none"
        raise RegistryError(f"{name} cannot be served: {why}. Other complete versions of {name.language}: {others}.") from None
    train = run.read_config().train
    try:
        resolve_model(train.base_model, "base_model")
    except ModelError as error:
        raise RegistryError(
            f"{name} cannot be served: {error}. Restore it, or run 'compass-ray adapt' again with its present path."
        ) from None
    expected, actual = model_identity(train.base_model, train.revision), manifest.config.get("base_model")
    if actual != expected:
        raise RegistryError(
            f"{name} cannot be served: it was trained on base model {actual}, but this run serves {expected}. "
            f"Train it again in this run."
        )
    return manifest


def _of_language(run: RunDir, language: str, complete: Sequence[str]) -> list[AdapterEntry]:
    manifests, damaged = _manifests(run, language, complete)
    versions = {manifest.fingerprint: version for version, manifest in manifests.items()}
    entries = [_entry(run, AdapterName(language, v), manifest, versions) for v, manifest in manifests.items()]
    entries += [AdapterEntry(AdapterName(language, v), False, "", "", {}, problem=problem) for v, problem in damaged.items()]
    entries.sort(key=lambda entry: entry.name.version)
    try:
        live = read_pointer(run, language).live
    except RegistryError as error:
        return [replace(entry, problem=entry.problem or str(error)) for entry in entries]
    return [_with_pointer(entry, live) for entry in entries] if live else entries


def _manifests(run: RunDir, language: str, complete: Sequence[str]) -> tuple[dict[str, Manifest], dict[str, str]]:
    manifests, damaged = {}, {}
    for version in complete:
        try:
            manifests[version] = run.adapter(language, version).require()
        except ArtifactError as error:
            damaged[version] = str(error)
    return manifests, damaged


def _entry(run: RunDir, name: AdapterName, manifest: Manifest, versions: Mapping[str, str]) -> AdapterEntry:
    parent, commit = manifest.inputs.get(_PARENT), manifest.provenance.get("commit")
    lineage = Lineage(
        parent=parent and versions.get(parent, f"(removed, fingerprint {parent})"),
        trained_on={source: value for source, value in manifest.inputs.items() if source != _PARENT},
        base_model=str(manifest.config.get("base_model", "")),
        commit=None if commit is None else str(commit),
    )
    return AdapterEntry(
        name=name,
        live=False,
        fingerprint=manifest.fingerprint,
        finished=str(manifest.provenance.get("finished", "")),
        metrics=manifest.metrics,
        lineage=lineage,
        gate=_gate(run, name) if parent else {},
        accuracy=_evaluated(run, name).get("accuracy"),
        chance=_evaluated(run, name).get("chance"),
    )


def _with_pointer(entry: AdapterEntry, live: LivePointer) -> AdapterEntry:
    """The entry with the information of the live pointer."""
    version, canary = entry.name.version, live.canary
    is_live = version == live.version
    return replace(
        entry,
        live=is_live,
        pinned=is_live and live.pinned is not None,
        canary=canary.share if canary and canary.version == version else None,
        shadow=version == live.shadow,
    )


def _gate(run: RunDir, name: AdapterName) -> Mapping[str, Any]:
    update = run.update(name.language, name.version)
    return GateRecord.read(update).to_json() if update.manifest() else {}


def _evaluated(run: RunDir, name: AdapterName) -> Mapping[str, Any]:
    """Metrics of the evaluation of a version; empty if it was not evaluated."""
    method = run.read_config().serve.method if name.version == FIRST_VERSION else name.version
    evaluated = run.evaluation(method, name.language).manifest()
    return {} if evaluated is None else evaluated.metrics
