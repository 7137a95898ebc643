"""Check that the cluster can satisfy the resource request of each stage. Without it, a job would stay pending.

Key property: a request is compared with single machines, running ones and those that the autoscaler can start. If it is unknown
what can start, a request that fits no running machine is reported but does not block the run.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from compass_ray.artifacts import full_finetuning_languages
from compass_ray.cluster_capacity import ClusterCapacity, Node, Request
from compass_ray.config import RunConfig
from compass_ray.config.resources import UNBOUND
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.hub import hub_uses

_SHOWN = ("CPU", "GPU")
_HIDDEN = ("memory", "object_store_memory")


@dataclass(frozen=True)
class ResourceRequest:
    """Request of a stage: ``count`` requests that must fit at the same time, and the setting for ``count``."""

    stage: str
    request: Request
    count: int = 1
    setting: str = ""


def resource_requests(config: RunConfig) -> list[ResourceRequest]:
    """The minimum request of each stage.

    One worker, if a stage runs with as many workers as fit. All workers of a training, if they start together.
    """
    resources = config.resources
    plain = {"CPU": resources.cpus_per_worker}
    worker = resources.resources_per_worker()
    together = resources.adapter_workers if config.train.layout == "per_language" else 1
    from_hub = any(use.repository.kind == "dataset" for use in hub_uses(config))
    return [
        *([ResourceRequest("pool", plain)] if from_hub else []),  # local data is read by the driver and requests no CPU
        ResourceRequest("embed", worker),
        ResourceRequest("cluster", worker),
        *([ResourceRequest("tune", worker)] if config.select.budget == "tuned" else []),
        ResourceRequest("select", plain),
        ResourceRequest("train", worker, together, "resources.adapter_workers"),
        *(
            [ResourceRequest("full", worker, resources.full_workers, "resources.full_workers")]
            if full_finetuning_languages(config)
            else []
        ),
        ResourceRequest("evaluate", worker),
    ]


def check_resources(context: CheckContext) -> list[CheckResult]:
    """Report every stage with a request that can never be satisfied; otherwise the capacity."""
    capacity = context.environment.capacity
    description = describe_capacity(capacity)
    merged: dict[tuple[str, bool], list[ResourceRequest]] = {}
    for each in resource_requests(context.config):
        if each.stage in context.stages and (problem := _problem(each, capacity)):
            merged.setdefault((problem, capacity.types is None), []).append(each)
    if not merged:
        worker = _format_request(resource_requests(context.config)[-1].request)
        return [CheckResult("resources", f"{description}; one worker requests {worker}")]
    return [_shortage(problem, unknown, group, context, description) for (problem, unknown), group in merged.items()]


def _problem(needed: ResourceRequest, capacity: ClusterCapacity) -> str:
    """Why a request cannot be satisfied; empty if it can."""
    shown = _format_request(needed.request)
    if not capacity.fits(needed.request):
        return f"requests {shown} on one machine"
    most = capacity.max_count(needed.request)
    return "" if most is None or most >= needed.count else f"requests {needed.count} times {shown}, only {most} can run"


def _shortage(problem: str, unknown: bool, group: list[ResourceRequest], context: CheckContext, capacity: str) -> CheckResult:
    """The result for stages with the same problem."""
    stages, request = ", ".join(each.stage for each in group), group[0].request
    too_many = context.environment.capacity.fits(request)
    fewer = [" and ".join(each.setting for each in group)] if too_many else []
    larger = "raise resources.cpus" if "GPU" not in request else "set RAY_ADDRESS to a larger cluster"
    more = f"add {'more machines' if too_many else 'a larger node type'}" if context.environment.is_cluster else larger
    return CheckResult(
        "resources",
        f"{stages}: {problem}; available: {capacity}",
        f"lower {', or '.join([_list_settings(request), *fewer, more])}",
        blocking=not unknown,
        by="settings",
    )


def _list_settings(request: Request) -> str:
    """The settings that determine a request."""
    custom = " or resources.worker_resources" if request.keys() - {*_SHOWN} else ""
    return "resources.cpus_per_worker" + (" or resources.gpus_per_worker" if "GPU" in request else "") + custom


def describe_capacity(capacity: ClusterCapacity) -> str:
    """Describe the machines of a cluster, and those that it can add.

    >>> from compass_ray.cluster_capacity import Node, NodeType
    >>> describe_capacity(ClusterCapacity((Node({"CPU": 2}),), (NodeType("gpu", {"CPU": 8, "GPU": 1}, 4),)))
    '1 machine with CPU 2; can start 4 more of gpu with CPU 8, GPU 1'
    """
    shapes = Counter(_format_request(node.resources) for node in capacity.nodes)
    machines = [f"{count} machine{'s' * (count > 1)} with {shape}" for shape, count in shapes.items()]
    running = ", ".join(machines) or "no machine"
    if capacity.types is None:
        return f"{running}; unknown whether the cluster can grow"
    growth = capacity.startable_nodes()
    more = [
        f"{'any number' if (count := growth[kind.name]) is None else count} more of {kind.name} "
        f"with {_format_request(kind.resources)}"
        for kind in capacity.types
        if growth[kind.name] != 0
    ]
    return running + (f"; can start {', '.join(more)}{_describe_total_limit(capacity)}" if more else "")


def _describe_total_limit(capacity: ClusterCapacity) -> str:
    """The limit on machines of all types together, if it is stricter than the limits of the types."""
    limits = [kind.max_nodes for kind in capacity.types or ()]
    known = [limit for limit in limits if limit is not None]
    if capacity.max_workers is None or (len(known) == len(limits) and sum(known) <= capacity.max_workers):
        return ""
    return f", at most {capacity.max_workers} in total"


def _format_request(resources: Request) -> str:
    custom = sorted(name for name in resources if name not in (*_SHOWN, *_HIDDEN) and ":" not in name)
    shown = [name for name in (*_SHOWN, *custom) if name == "CPU" or resources.get(name, 0)]
    return ", ".join(f"{name} {resources.get(name, 0):g}" for name in shown)


def local_capacity(config: RunConfig) -> ClusterCapacity:
    """Capacity of this machine as a local Ray would offer it."""
    gpus = {"GPU": float(_gpus())} if config.resources.gpus_per_worker > 0 else {}
    custom = dict.fromkeys(config.resources.worker_resources, UNBOUND)
    return ClusterCapacity((Node({"CPU": float(config.resources.cpus or os.cpu_count() or 1), **gpus, **custom}),))


def _gpus() -> int:
    import torch

    return int(torch.cuda.device_count())
