"""Whether a run could be done here, said before any work: versions, machines, memory, storage, models, data, resources.

Each check looks at one thing and never changes anything but a file in the run directory, which it removes. None of them
knows Ray: what there is of a cluster is handed over as `Surroundings`. `quick` is what a run asks before it starts.
"""

from __future__ import annotations

from collections.abc import Collection

from compass_ray.artifacts import RunDir, fully_tuned
from compass_ray.config import ConfigError, RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.ranker import require_methods
from compass_ray.models.zero_settings import read_settings, require_deepspeed
from compass_ray.preflight.data import check_guides, check_rows
from compass_ray.preflight.findings import STAGES, Asked, Check, Finding, Surroundings, blocking
from compass_ray.preflight.machine import check_authentication, check_devices, check_limits
from compass_ray.preflight.memory import check_memory
from compass_ray.preflight.models import check_models, check_remote_code
from compass_ray.preflight.pins import Pins, pin, pinned, read_pins
from compass_ray.preflight.resources import check_resources, described, local
from compass_ray.preflight.storage import check_storage, check_versions_alike
from compass_ray.preflight.versions import check_versions
from compass_ray.preflight.witness import Witness, left_behind, witness
from compass_ray.sources.typology import vectors_source

__all__ = [
    "STAGES", "Finding", "Pins", "Surroundings", "Witness", "blocking", "check", "here", "left_behind", "pin", "pinned", "quick",
    "read_pins", "witness",
]  # fmt: skip


def check(config: RunConfig, run: RunDir, around: Surroundings | None = None) -> list[Finding]:
    """Every check, in the order in which a run would meet the problem; on this machine unless told of a cluster."""
    asked = Asked(config, run, around or here(config, run))
    checks: tuple[Check, ...] = (
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


def quick(config: RunConfig, run: RunDir, around: Surroundings, stages: Collection[str]) -> list[Finding]:
    """The checks that take no time worth telling, for the stages that have something to do."""
    asked = Asked(config, run, around, frozenset(stages), thorough=False)
    checks: list[Check] = [check_cluster, check_resources, check_storage, check_models]
    if "pool" in stages:
        checks.append(check_rows)
    return [finding for one in checks for finding in one(asked)]


def here(config: RunConfig, run: RunDir) -> Surroundings:
    """This machine alone, as a Ray that is started here would be."""
    return Surroundings(local(config), (witness(run),))


def check_cluster(asked: Asked) -> list[Finding]:
    """Whether the cluster that is named could be joined."""
    if asked.around.unreachable:
        remedy = "start it, correct RAY_ADDRESS, set RAY_AUTH_MODE as it has it, or unset RAY_ADDRESS to work here"
        return [Finding("cluster", asked.around.unreachable, remedy, blocking=True)]
    return [Finding("cluster", described(asked.around.capacity))] if asked.around.cluster else []


def check_methods(asked: Asked) -> list[Finding]:
    """Whether what the selection methods need is installed."""
    select = asked.config.select
    try:
        require_methods(select, asked.config.languages)
        if fully_tuned(asked.config):
            require_deepspeed()
            read_settings(asked.config.full.deepspeed)
    except (ConfigError, ModelError) as error:
        return [Finding("methods", str(error), "or leave the method out of select.methods", blocking=True)]
    by_vectors = [name for name in select.methods if name in ("langrank", "langsim")]
    vectors = f"; languages compared by {vectors_source()}" if by_vectors else ""
    return [Finding("methods", ", ".join(select.methods) + vectors)]
