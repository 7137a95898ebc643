"""Whether a run could be done here, said before any work: versions, machines, memory, storage, models, data, resources.

Each check looks at one thing and never changes anything but a file in the run directory, which it removes. None of them
knows Ray: what there is of a cluster is handed over as `Surroundings`. `quick` is what a run asks before it starts.
"""

from __future__ import annotations

from collections.abc import Collection

from compass_ray.artifacts import RunDir, full_finetuning_languages
from compass_ray.config import ConfigError, RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.transfer_ranker import check_method_requirements
from compass_ray.preflight.check_result import (
    STAGES,
    CheckContext,
    CheckFunction,
    CheckResult,
    ClusterEnvironment,
    blocking_results,
)
from compass_ray.preflight.data import check_guides, check_rows
from compass_ray.preflight.machine import check_authentication, check_devices, check_limits
from compass_ray.preflight.memory import check_memory
from compass_ray.preflight.models import check_models, check_remote_code
from compass_ray.preflight.pins import Pins, apply_pins, pin, read_pins
from compass_ray.preflight.resources import check_resources, describe_capacity, local_capacity
from compass_ray.preflight.storage import check_storage, check_versions_alike
from compass_ray.preflight.storage_probe import StorageProbe, driver_marker_file, probe_storage
from compass_ray.preflight.versions import check_versions
from compass_ray.sources.typology import vectors_source
from compass_ray.training.deepspeed_config import read_deepspeed_config, require_deepspeed

__all__ = [
    "STAGES",
    "CheckResult",
    "ClusterEnvironment",
    "Pins",
    "StorageProbe",
    "apply_pins",
    "blocking_results",
    "driver_marker_file",
    "local_environment",
    "pin",
    "probe_storage",
    "read_pins",
    "run_checks",
    "run_quick_checks",
]  # fmt: skip


def run_checks(config: RunConfig, run: RunDir, around: ClusterEnvironment | None = None) -> list[CheckResult]:
    """Every check, in the order in which a run would meet the problem; on this machine unless told of a cluster."""
    asked = CheckContext(config, run, around or local_environment(config, run))
    checks: tuple[CheckFunction, ...] = (
        check_versions,
        check_authentication,
        check_cluster,
        check_limits,
        check_devices,
        check_resources,
        check_storage,
        check_versions_alike,
        check_rows,
        check_guides,
        check_methods,
        check_models,
        check_remote_code,
    )
    findings = [finding for one in checks for finding in one(asked)]
    without_base = any(finding.check == "base model" and finding.blocking for finding in findings)
    return findings if without_base else findings + check_memory(asked)


def run_quick_checks(config: RunConfig, run: RunDir, around: ClusterEnvironment, stages: Collection[str]) -> list[CheckResult]:
    """The checks that take no time worth telling, for the stages that have something to do."""
    asked = CheckContext(config, run, around, frozenset(stages), thorough=False)
    checks: list[CheckFunction] = [check_cluster, check_resources, check_storage, check_models]
    if "pool" in stages:
        checks.append(check_rows)
    return [finding for one in checks for finding in one(asked)]


def local_environment(config: RunConfig, run: RunDir) -> ClusterEnvironment:
    """This machine alone, as a Ray that is started here would be."""
    return ClusterEnvironment(local_capacity(config), (probe_storage(run),))


def check_cluster(asked: CheckContext) -> list[CheckResult]:
    """Whether the cluster that is named could be joined."""
    if asked.environment.unreachable:
        remedy = "start it, correct RAY_ADDRESS, set RAY_AUTH_MODE as it has it, or unset RAY_ADDRESS to work here"
        return [CheckResult("cluster", asked.environment.unreachable, remedy, blocking=True)]
    return [CheckResult("cluster", describe_capacity(asked.environment.capacity))] if asked.environment.is_cluster else []


def check_methods(asked: CheckContext) -> list[CheckResult]:
    """Whether what the selection methods need is installed."""
    select = asked.config.select
    try:
        check_method_requirements(select, asked.config.languages)
        if full_finetuning_languages(asked.config):
            require_deepspeed()
            read_deepspeed_config(asked.config.full.deepspeed)
    except (ConfigError, ModelError) as error:
        return [CheckResult("methods", str(error), "or leave the method out of select.methods", blocking=True)]
    by_vectors = [name for name in select.methods if name in ("langrank", "langsim")]
    vectors = f"; languages compared by {vectors_source()}" if by_vectors else ""
    return [CheckResult("methods", ", ".join(select.methods) + vectors)]
