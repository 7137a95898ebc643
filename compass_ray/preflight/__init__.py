"""Checks before a run: versions, machines, memory, storage, models, data and resources.

Each check covers one topic. The only side effect is a temporary file in the run directory, which the check removes.
No check calls Ray: the caller passes the cluster as a `ClusterEnvironment`. A run starts with `run_quick_checks`.
"""

from __future__ import annotations

from collections.abc import Collection

from compass_ray.artifacts import RunDir, full_finetuning_languages
from compass_ray.config import ConfigError, RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.transfer_ranker import check_method_requirements
from compass_ray.preflight.automatic_updates import (
    check_automatic_updates,
    has_unlimited_updates,
    require_limited_updates,
)
from compass_ray.preflight.check_result import (
    STAGES,
    CheckContext,
    CheckFunction,
    CheckResult,
    ClusterEnvironment,
    blocking_results,
)
from compass_ray.preflight.clusters import check_clusters
from compass_ray.preflight.data import check_guides, check_rows, check_sources
from compass_ray.preflight.embedding import check_embedding_time, check_prompts
from compass_ray.preflight.identifier import check_identifier
from compass_ray.preflight.machine import check_authentication, check_devices, check_limits
from compass_ray.preflight.memory import check_memory
from compass_ray.preflight.models import check_models, check_remote_code, require_served_models
from compass_ray.preflight.permissions import check_permissions
from compass_ray.preflight.pins import Pins, apply_pins, pin, read_pins
from compass_ray.preflight.resources import check_resources, describe_capacity, local_capacity
from compass_ray.preflight.storage import check_storage, check_versions_alike
from compass_ray.preflight.storage_probe import StorageProbe, driver_marker_file, probe_storage
from compass_ray.preflight.subjects import check_subjects
from compass_ray.preflight.training_cost import check_training_cost
from compass_ray.preflight.versions import check_versions
from compass_ray.preflight.vllm_environment import check_vllm
from compass_ray.preflight.vllm_memory import check_vllm_memory
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
    "has_unlimited_updates",
    "local_environment",
    "pin",
    "probe_storage",
    "read_pins",
    "require_limited_updates",
    "require_served_models",
    "run_checks",
    "run_quick_checks",
]  # fmt: skip


def run_checks(
    config: RunConfig, run: RunDir, environment: ClusterEnvironment | None = None, *, forecast: bool = True
) -> list[CheckResult]:
    """Run every check, in the order in which a run would meet the problem. Without ``environment``: on this machine.

    With ``forecast``, the time of the embedding is measured, which takes up to ten seconds.
    """
    context = CheckContext(config, run, environment or local_environment(config, run), forecast=forecast)
    checks: tuple[CheckFunction, ...] = (
        check_versions,
        check_authentication,
        check_cluster,
        check_limits,
        check_devices,
        check_resources,
        check_storage,
        check_permissions,
        check_versions_alike,
        check_sources,
        check_rows,
        check_guides,
        check_methods,
        check_subjects,
        check_models,
        check_remote_code,
        check_prompts,
        check_automatic_updates,
        check_vllm,
        check_clusters,
        check_training_cost,
    )
    results = [result for check in checks for result in check(context)]
    blocked = {result.check for result in results if result.blocking}
    of_identifier = [] if "language identifier" in blocked else check_identifier(context)
    of_base = [] if _lacks_base(results) else [*check_base(context), *check_memory(context), *check_vllm_memory(context)]
    of_encoder = [] if blocked & {"storage", "encoder", "remote code", "sources", "languages"} else check_embedding_time(context)
    return [*results, *of_identifier, *of_base, *of_encoder]


def run_quick_checks(
    config: RunConfig, run: RunDir, environment: ClusterEnvironment, stages: Collection[str]
) -> list[CheckResult]:
    """Run the quick checks for the stages that are not complete: each takes well under a second, the probe a few seconds."""
    context = CheckContext(config, run, environment, frozenset(stages), thorough=False)
    checks: list[CheckFunction] = [check_cluster, check_resources, check_storage, check_models, check_remote_code, check_vllm]
    if "pool" in stages:
        checks += [check_sources, check_rows]
    if "select" in stages:
        checks.append(check_subjects)
    results = [result for check in checks for result in check(context)]
    return results if _lacks_base(results) else [*results, *check_base(context)]


def _lacks_base(results: Collection[CheckResult]) -> bool:
    return any(result.check == "base model" and result.blocking for result in results)


def check_base(context: CheckContext) -> list[CheckResult]:
    """Probe the base model. The probe loads torch and transformers, so it is imported only if the base model is used."""
    if not context.needs_base():
        return []
    from compass_ray.preflight import base_probe

    return base_probe.check_base(context)


def local_environment(config: RunConfig, run: RunDir) -> ClusterEnvironment:
    """This machine only, with the capacity of a Ray that is started here."""
    return ClusterEnvironment(local_capacity(config), (probe_storage(run),))


def check_cluster(context: CheckContext) -> list[CheckResult]:
    """Check that the cluster of RAY_ADDRESS can be joined."""
    if context.environment.unreachable:
        remedy = "start it, correct RAY_ADDRESS, set RAY_AUTH_MODE to its value there, or unset RAY_ADDRESS to use this machine"
        return [CheckResult("cluster", context.environment.unreachable, remedy, blocking=True)]
    return [CheckResult("cluster", describe_capacity(context.environment.capacity))] if context.environment.is_cluster else []


def check_methods(context: CheckContext) -> list[CheckResult]:
    """Check that the requirements of the selection methods are installed."""
    select = context.config.select
    try:
        check_method_requirements(select, context.config.languages)
        if full_finetuning_languages(context.config):
            read_deepspeed_config(context.config.full.deepspeed)
            require_deepspeed()
    except (ConfigError, ModelError) as error:
        return [CheckResult("methods", str(error), "or remove the method from select.methods", blocking=True)]
    by_vectors = [name for name in select.methods if name in ("langrank", "langsim")]
    vectors = f"; languages compared by {vectors_source()}" if by_vectors else ""
    return [CheckResult("methods", ", ".join(select.methods) + vectors)]
