"""Duration of a run's stages, and the utilisation of the cluster in each.

Key property: computed from measurements only: the seconds in each manifest, and the times and cluster sizes that each attempt
recorded. Nothing is estimated. A value that was not measured is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from compass_ray.artifacts import Attempt, Manifest, StageTime
from compass_ray.config import Resources

_ON_GPUS = frozenset({"embed", "cluster", "train", "full", "evaluate"})
"""Stages with workers that request `resources.gpus_per_worker`."""


@dataclass(frozen=True)
class StageUse:
    """One stage over all attempts; times in seconds."""

    stage: str
    wall: float
    """Time from start to end, summed over attempts."""
    work: float | None
    """Time that workers spent on complete artifacts."""
    available: float
    """CPU seconds of the cluster during the stage; GPU seconds if its workers request GPUs."""
    share: float
    """CPUs or GPUs that one worker requests."""

    @property
    def mean_active_workers(self) -> float | None:
        """Average number of workers that are active at once."""
        return self.work / self.wall if self.work is not None and self.wall > 0 else None

    @property
    def utilisation(self) -> float | None:
        """Share of the cluster's CPUs, or GPUs, that active workers used."""
        if self.work is None or self.available <= 0:
            return None
        return self.work * self.share / self.available


@dataclass(frozen=True)
class Span:
    """One artifact, and when a worker computed it, in Unix seconds."""

    name: str
    stage: str
    started: float
    finished: float


def stage_uses(attempts: Sequence[Attempt], manifests: Mapping[str, Manifest], resources: Resources) -> list[StageUse]:
    """Use of every stage that an attempt recorded, in the order in which they first ended."""
    times: dict[str, list[StageTime]] = defaultdict(list)
    for attempt in attempts:
        for time in attempt.stages:
            times[time.stage].append(time)
    return [_measure_stage(stage, recorded, _work(stage, manifests), resources) for stage, recorded in times.items()]


def spans(manifests: Mapping[str, Manifest], stages: Sequence[str]) -> list[Span]:
    """Spans of the artifacts of some stages, the earliest first."""
    found = [_span(name, manifest) for name, manifest in manifests.items() if manifest.stage in stages]
    return sorted((span for span in found if span), key=lambda span: (span.started, span.name))


def _measure_stage(stage: str, times: Sequence[StageTime], work: float | None, resources: Resources) -> StageUse:
    on_gpus = stage in _ON_GPUS and resources.gpus_per_worker > 0
    sizes = [time.gpus if on_gpus else time.cpus for time in times]
    return StageUse(
        stage=stage,
        wall=sum(time.seconds for time in times),
        work=work,
        available=sum(size * time.seconds for size, time in zip(sizes, times, strict=True)),
        share=resources.gpus_per_worker if on_gpus else resources.cpus_per_worker,
    )


def _work(stage: str, manifests: Mapping[str, Manifest]) -> float | None:
    seconds = [m.metrics["seconds"] for m in manifests.values() if m.stage == stage and "seconds" in m.metrics]
    return float(sum(seconds)) if seconds else None


def _span(name: str, manifest: Manifest) -> Span | None:
    seconds, finished = manifest.metrics.get("seconds"), manifest.provenance.get("finished")
    if seconds is None or finished is None:
        return None
    end = datetime.fromisoformat(finished).timestamp()
    return Span(name, manifest.stage, end - float(seconds), end)
