"""How long the stages of a run took, and how much of the cluster worked meanwhile.

Key property: computed from what was measured where the work was done: the seconds in every manifest, and the time and
the size of the cluster that each attempt kept. Nothing is estimated; what was not measured is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from compass_ray.artifacts import Attempt, Manifest, StageTime
from compass_ray.config import Resources

_ON_GPUS = frozenset({"embed", "cluster", "train", "full", "evaluate"})
"""Stages whose workers ask for `resources.gpus_per_worker`."""


@dataclass(frozen=True)
class StageUse:
    """One stage over all attempts; times in seconds."""

    stage: str
    wall: float
    """From its beginning to its end, summed over attempts."""
    work: float | None
    """What its workers spent on artefacts that are whole."""
    available: float
    """Of CPUs, or of GPUs for a stage that asks for some: what the cluster had, times the wall time."""
    share: float
    """Of a CPU or GPU that one worker asks for."""

    @property
    def mean_active_workers(self) -> float | None:
        """Workers at work, on average."""
        return self.work / self.wall if self.work is not None and self.wall > 0 else None

    @property
    def utilisation(self) -> float | None:
        """Share of the cluster's CPUs, or GPUs, that workers held while they worked."""
        if self.work is None or self.available <= 0:
            return None
        return self.work * self.share / self.available


@dataclass(frozen=True)
class Span:
    """One artefact and when a worker was at it, in Unix seconds."""

    name: str
    stage: str
    started: float
    finished: float


def stage_uses(attempts: Sequence[Attempt], manifests: Mapping[str, Manifest], resources: Resources) -> list[StageUse]:
    """Every stage that some attempt kept, in the order in which they first ended."""
    times: dict[str, list[StageTime]] = defaultdict(list)
    for attempt in attempts:
        for time in attempt.stages:
            times[time.stage].append(time)
    return [_measure_stage(stage, kept, _work(stage, manifests), resources) for stage, kept in times.items()]


def spans(manifests: Mapping[str, Manifest], stages: Sequence[str]) -> list[Span]:
    """When workers were at the artefacts of some stages, the earliest first."""
    found = [_span(name, manifest) for name, manifest in manifests.items() if manifest.stage in stages]
    return sorted((span for span in found if span), key=lambda span: (span.started, span.name))


def _measure_stage(stage: str, times: Sequence[StageTime], work: float | None, resources: Resources) -> StageUse:
    on_gpus = stage in _ON_GPUS and resources.gpus_per_worker > 0
    has = [time.gpus if on_gpus else time.cpus for time in times]
    return StageUse(
        stage=stage,
        wall=sum(time.seconds for time in times),
        work=work,
        available=sum(each * time.seconds for each, time in zip(has, times, strict=True)),
        share=resources.gpus_per_worker if on_gpus else resources.cpus_per_worker,
    )


def _work(stage: str, manifests: Mapping[str, Manifest]) -> float | None:
    found = [m.metrics["seconds"] for m in manifests.values() if m.stage == stage and "seconds" in m.metrics]
    return float(sum(found)) if found else None


def _span(name: str, manifest: Manifest) -> Span | None:
    seconds, finished = manifest.metrics.get("seconds"), manifest.provenance.get("finished")
    if seconds is None or finished is None:
        return None
    end = datetime.fromisoformat(finished).timestamp()
    return Span(name, manifest.stage, end - float(seconds), end)
