"""What a check says, and what a check is asked about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from compass_ray.artifacts import RunDir
from compass_ray.cluster_capacity import ClusterCapacity
from compass_ray.config import RunConfig
from compass_ray.preflight.storage_probe import StorageProbe

STAGES = frozenset(("pool", "embed", "cluster", "tune", "select", "train", "full", "evaluate", "report"))


@dataclass(frozen=True)
class CheckResult:
    """One check: what was found, what to do about it, and whether a run cannot start because of it."""

    check: str
    found: str
    remedy: str = ""
    blocking: bool = False
    by: Literal["settings", "surroundings"] = "surroundings"
    """What is to be changed where it blocks: the configuration, or the machines, packages and permissions around it."""


@dataclass(frozen=True)
class ClusterEnvironment:
    """Where a run is to be computed: one machine, or the cluster that is named."""

    capacity: ClusterCapacity
    probes: tuple[StorageProbe, ...]
    """What each machine that was asked says of the run directory; the driver's comes first."""
    is_cluster: bool = False
    unreachable: str = ""
    """Why a cluster that is named could not be joined; the rest is then this machine's."""


@dataclass(frozen=True)
class CheckContext:
    """What a check is asked about; ``stages`` are those that have something to do."""

    config: RunConfig
    run: RunDir
    environment: ClusterEnvironment
    stages: frozenset[str] = field(default=STAGES)
    thorough: bool = True
    """Whether what takes seconds, and what the service alone needs, is asked about too."""

    def needs_encoder(self) -> bool:
        """Whether something is to be embedded."""
        return "embed" in self.stages

    def needs_base(self) -> bool:
        """Whether the base model is to be loaded."""
        tuned = self.config.select.budget == "tuned" and "tune" in self.stages
        return tuned or bool(self.stages & {"train", "evaluate"})


CheckFunction = Callable[[CheckContext], list[CheckResult]]


def blocking_results(findings: Iterable[CheckResult]) -> list[CheckResult]:
    """Those in the way of a run."""
    return [finding for finding in findings if finding.blocking]
