"""The adapter versions of a run: where each came from, what it scored, and whether it may be served.

Key property: a version is fit to be served only if every byte is the one that its manifest names and it was trained on the
run's base model. Versions never change once published: new weights get a new name (``sw@v0003``). It loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compass_ray.adapters.lineage import Lineage
from compass_ray.artifacts import FIRST_VERSION, ArtifactError, Manifest, RunDir
from compass_ray.models.model_resolver import model_identity
from compass_ray.registry.live_pointer import LivePointer, read_pointer
from compass_ray.registry.names import AdapterName, RegistryError, check_name

_PARENT = "parent"
"""What an update's manifest calls the version that it was trained from."""


@dataclass(frozen=True)
class AdapterEntry:
    """One whole adapter version of a run."""

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
    """Whether it is live and may not be replaced."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """What the gate measured of an update, and its verdict; empty for a first version."""
    accuracy: float | None = None
    """On the language's test set, where it was evaluated."""
    problem: str = ""
    """Why it cannot be told more of it."""


def list_versions(run: RunDir, languages: Sequence[str]) -> list[AdapterEntry]:
    """Every whole adapter version of the languages.

    A version whose manifest is damaged, and a language whose pointer is, come with the ``problem``.
    """
    whole = run.complete_adapters()
    return [entry for code in languages for entry in _of_language(run, code, whole.get(code, ()))]


def verify_servable(run: RunDir, name: AdapterName) -> Manifest:
    """The manifest of a version, once every file was compared with it.

    Raises:
        RegistryError: the version is missing, damaged, or made for another base model.
    """
    check_name(name)
    try:
        manifest = run.adapter(name.language, name.version).verify()
    except ArtifactError as error:
        whole = run.complete_adapters().get(name.language, ())
        why = error if name.version in (*whole, FIRST_VERSION) else "there is no such whole version"
        others = ", ".join(v for v in whole if v != name.version) or "none"
        raise RegistryError(f"{name} cannot be served: {why}. Other whole versions of {name.language}: {others}") from None
    train = run.read_config().train
    expected, made_for = model_identity(train.base_model, train.revision), manifest.config.get("base_model")
    if made_for != expected:
        raise RegistryError(
            f"{name} cannot be served: it was trained on base model {made_for}, this run serves {expected}; "
            f"train it again in this run"
        )
    return manifest


def _of_language(run: RunDir, language: str, whole: Sequence[str]) -> list[AdapterEntry]:
    manifests, damaged = _manifests(run, language, whole)
    names = {manifest.fingerprint: version for version, manifest in manifests.items()}
    found = [_entry(run, AdapterName(language, v), manifest, names) for v, manifest in manifests.items()]
    found += [AdapterEntry(AdapterName(language, v), False, "", "", {}, problem=problem) for v, problem in damaged.items()]
    found.sort(key=lambda entry: entry.name.version)
    try:
        live = read_pointer(run, language).live
    except RegistryError as error:
        return [replace(entry, problem=entry.problem or str(error)) for entry in found]
    return [_with_pointer(entry, live) for entry in found] if live else found


def _manifests(run: RunDir, language: str, whole: Sequence[str]) -> tuple[dict[str, Manifest], dict[str, str]]:
    manifests, damaged = {}, {}
    for version in whole:
        try:
            manifests[version] = run.adapter(language, version).require()
        except ArtifactError as error:
            damaged[version] = str(error)
    return manifests, damaged


def _entry(run: RunDir, name: AdapterName, manifest: Manifest, names: Mapping[str, str]) -> AdapterEntry:
    parent, commit = manifest.inputs.get(_PARENT), manifest.provenance.get("commit")
    lineage = Lineage(
        parent=parent and names.get(parent, f"(removed, fingerprint {parent})"),
        trained_on={source: mark for source, mark in manifest.inputs.items() if source != _PARENT},
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
        accuracy=_accuracy(run, name),
    )


def _with_pointer(entry: AdapterEntry, live: LivePointer) -> AdapterEntry:
    """The entry with what the live pointer says of its version."""
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
    judged = run.update(name.language, name.version)
    return dict(judged.read_json("gate.json")) if judged.manifest() else {}


def _accuracy(run: RunDir, name: AdapterName) -> float | None:
    method = run.read_config().serve.method if name.version == FIRST_VERSION else name.version
    evaluated = run.evaluation(method, name.language).manifest()
    return None if evaluated is None else evaluated.metrics.get("accuracy")
