"""Result of a check, and the context that a check gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from compass_ray.artifacts import RunDir
from compass_ray.cluster_capacity import ClusterCapacity
from compass_ray.config import RunConfig
from compass_ray.config.stage_names import STAGE_NAMES
from compass_ray.preflight.local_files import find_source_problems
from compass_ray.preflight.row_counts import SourceCount, count_rows
from compass_ray.preflight.storage_probe import StorageProbe
from compass_ray.redaction import redact

STAGES = frozenset(STAGE_NAMES)


@dataclass(frozen=True)
class CheckResult:
    """Result of one check: the finding, the remedy, and whether it blocks the run. Both texts show no credentials."""

    check: str
    found: str
    remedy: str = ""
    blocking: bool = False
    by: Literal["settings", "surroundings"] = "surroundings"
    """What to change if it blocks: the configuration, or the environment (machines, packages, permissions)."""

    def __post_init__(self) -> None:
        """Remove credentials of URIs from both texts."""
        object.__setattr__(self, "found", redact(self.found))
        object.__setattr__(self, "remedy", redact(self.remedy))


@dataclass(frozen=True)
class ClusterEnvironment:
    """Where a run is computed: this machine, or the cluster of RAY_ADDRESS."""

    capacity: ClusterCapacity
    probes: tuple[StorageProbe, ...]
    """Access to the run directory from each probed machine; the driver's comes first."""
    is_cluster: bool = False
    requires_token: bool | None = None
    """Whether the cluster refuses clients without its token. None if unknown, and for this machine."""
    unreachable: str = ""
    """Why the cluster of RAY_ADDRESS cannot be joined. The other fields then describe this machine."""


@dataclass(frozen=True)
class CheckContext:
    """Input of a check. ``stages`` are the stages that are not complete."""

    config: RunConfig
    run: RunDir
    environment: ClusterEnvironment
    stages: frozenset[str] = field(default=STAGES)
    thorough: bool = True
    """Whether to include checks that take seconds, and those that only the service needs."""
    forecast: bool = True
    """Whether to measure how long a stage takes."""

    @cached_property
    def source_problems(self) -> dict[str, str]:
        """What keeps local sources from being read, by their settings. Several checks use it, and files are opened once."""
        return find_source_problems(self.config)

    @cached_property
    def source_counts(self) -> list[SourceCount]:
        """Rows that the pool takes from each of its sources. Sources that cannot be read have none."""
        pool = self.config.pool
        return [
            SourceCount() if f"pool.sources.{number}" in self.source_problems else count_rows(source, pool, self.thorough)
            for number, source in enumerate(pool.sources)
        ]

    def needs_encoder(self) -> bool:
        """Whether a stage embeds rows."""
        return "embed" in self.stages

    def needs_base(self) -> bool:
        """Whether a stage loads the base model."""
        tuned = self.config.select.budget == "tuned" and "tune" in self.stages
        return tuned or bool(self.stages & {"train", "evaluate"})


CheckFunction = Callable[[CheckContext], list[CheckResult]]


def blocking_results(results: Iterable[CheckResult]) -> list[CheckResult]:
    """The results that block a run."""
    return [result for result in results if result.blocking]
