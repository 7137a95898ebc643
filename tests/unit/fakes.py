"""Stand-ins for everything that would load a model or read a clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compass_ray.artifacts import MANIFEST, Artifact
from compass_ray.clustering.versions import ClusterSpace
from compass_ray.monitoring.cluster_assigner import Assignments
from compass_ray.records.allocation import AllocationRecord, NoiseRecord, QuotaRecord

BASE = "organisation/model"
MakeAdapter = Callable[..., None]
LANGUAGE_STATUS: dict[str, Any] = {
    "prompts": 300,
    "version": "v0002",
    "last_check": {
        "divergence": 0.2,
        "threshold": 0.1,
        "legs": [{"name": "divergence", "effect": 0.2, "p_value": 0.0005}, {"name": "loss", "effect": -0.1, "p_value": 0.9}],
    },
    "noise": 0.25,
    "distance": 0.4,
    "stale": True,
    "replies": {
        "v0001": {"nll": 9.0, "replies": 9, "bad": 9, "rated": 9, "right": 9, "asked": 9},
        "v0002": {"nll": 1.5, "replies": 3, "bad": 1, "rated": 4, "right": 3, "asked": 4},
    },
}
"""The monitor's status of a language, with every field."""


@dataclass
class Clock:
    """A clock that only moves when a test sets it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class WordAssigner:
    """The cluster of a prompt is the number it ends with; ``-1`` is noise; prompts with ``broken`` or ``overflow`` fail.

    Prompts with ``far`` have a distance of 0.75 to their centroid, all others 0.25.
    """

    calls: list[int] = field(default_factory=list)

    def preload(self, space: ClusterSpace) -> None:
        """All cluster spaces are the same."""

    def assign(self, prompts: Sequence[str], spaces: Sequence[ClusterSpace] | None = None) -> Assignments:
        if any("broken" in prompt for prompt in prompts):
            raise ValueError("a prompt gave NaN")
        if any("overflow" in prompt for prompt in prompts):
            raise RuntimeError(f"cannot embed {prompts}")
        self.calls.append(len(prompts))
        labels = np.array([int(prompt.split()[-1]) for prompt in prompts], dtype=np.int32)
        distances = np.array([0.75 if "far" in prompt else 0.25 for prompt in prompts], dtype=np.float32)
        return Assignments(labels, labels, np.ones((len(prompts), 4), dtype=np.float32) / 2, distances)


@dataclass(frozen=True)
class Identified:
    """What `WordIdentifier` says."""

    language: str | None
    label: str
    confidence: float


class WordIdentifier:
    """The language of a text is its first word; any other word is no language of the run."""

    def identify(self, texts: Sequence[str], restrict: Sequence[str] | None = None) -> list[Identified]:
        words = [text.split()[0] for text in texts]
        return [Identified(word if word in (restrict or ()) else None, word, 0.9) for word in words]


@dataclass
class Residents:
    """Adapters by name; refuses to load those whose weights say ``refuse``."""

    loaded: dict[str, bytes] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.loaded)

    def load(self, name: str, folder: Path) -> None:
        weights = (folder / "adapter_model.safetensors").read_bytes()
        if b"refuse" in weights:
            raise ValueError("the adapter is for another base model")
        self.loaded[name] = weights

    def unload(self, name: str) -> None:
        del self.loaded[name]


def make_allocation(*guide: int, noise: int = 0) -> AllocationRecord:
    """The allocation of a selection of Swahili: ``guide`` prompts by cluster, nothing selected."""
    clusters = tuple(QuotaRecord(cluster=i, n_target=0, n_aux=0, n_eval=n) for i, n in enumerate(guide))
    return AllocationRecord(language="sw", method="compass", budget=0, noise=NoiseRecord(guide=noise), clusters=clusters)


def record_contents(artifact: Artifact) -> None:
    """Rewrite the manifest of an artifact for its files as they are now, as if it had been made so."""
    manifest = artifact.require().model_copy(update={"outputs": artifact.outputs()}).sealed()
    artifact.store_bytes(MANIFEST, manifest.model_dump_json().encode())
