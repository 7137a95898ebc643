"""Whether what each stage asks for can ever be had here: said at once, not as a job that stays pending.

Key property: a request is set against what single machines hold, present ones and those that the autoscaler may start.
Where it is unknown what may start, a request that no present machine holds is told and does not stop the run.
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
    """What a stage asks for: so many requests that must all find room at once, and the setting that says how many."""

    stage: str
    request: Request
    count: int = 1
    setting: str = ""


def resource_requests(config: RunConfig) -> list[ResourceRequest]:
    """What each stage asks for at the least.

    One worker, where a stage makes do with as many as find room; all workers of a training, where they start together.
    """
    resources = config.resources
    plain = {"CPU": resources.cpus_per_worker}
    worker = resources.resources_per_worker()
    together = resources.adapter_workers if config.train.layout == "per_language" else 1
    from_hub = any(use.repository.kind == "dataset" for use in hub_uses(config))
    return [
        *([ResourceRequest("pool", plain)] if from_hub else []),  # what lies here is read on this machine, for no CPU
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


def check_resources(asked: CheckContext) -> list[CheckResult]:
    """Every stage whose request can never be met, or what there is."""
    capacity, told = asked.environment.capacity, describe_capacity(asked.environment.capacity)
    merged: dict[tuple[str, bool], list[ResourceRequest]] = {}
    for wish in resource_requests(asked.config):
        if wish.stage in asked.stages and (found := _unmet(wish, capacity)):
            merged.setdefault((found, capacity.types is None), []).append(wish)
    if not merged:
        return [
            CheckResult(
                "resources", f"{told}; one worker asks for {_format_request(resource_requests(asked.config)[-1].request)}"
            )
        ]
    return [_finding(found, unknown, group, asked, told) for (found, unknown), group in merged.items()]


def _unmet(wish: ResourceRequest, capacity: ClusterCapacity) -> str:
    """What is wrong with a wish; nothing where it can be met."""
    if not capacity.fits(wish.request):
        return f"asks for {_format_request(wish.request)} on one machine"
    most = capacity.max_count(wish.request)
    return (
        "" if most is None or most >= wish.count else f"asks for {wish.count} times {_format_request(wish.request)}, {most} fit"
    )


def _finding(found: str, unknown: bool, group: list[ResourceRequest], asked: CheckContext, told: str) -> CheckResult:
    """One shortage of several stages."""
    stages, request = ", ".join(wish.stage for wish in group), group[0].request
    too_many = asked.environment.capacity.fits(request)
    fewer = [" and ".join(wish.setting for wish in group)] if too_many else []
    larger = "raise resources.cpus" if "GPU" not in request else "name a cluster with RAY_ADDRESS"
    more = f"add {'more machines' if too_many else 'a larger node type'}" if asked.environment.is_cluster else larger
    return CheckResult(
        "resources",
        f"{stages}: {found}; {told}",
        f"lower {', or '.join([_list_settings(request), *fewer, more])}",
        blocking=not unknown,
        by="settings",
    )


def _list_settings(request: Request) -> str:
    """The settings behind a request."""
    custom = " or resources.worker_resources" if request.keys() - {*_SHOWN} else ""
    return "resources.cpus_per_worker" + (" or resources.gpus_per_worker" if "GPU" in request else "") + custom


def describe_capacity(capacity: ClusterCapacity) -> str:
    """What a cluster is and can grow to, in words.

    >>> from compass_ray.cluster_capacity import Node, NodeType
    >>> describe_capacity(ClusterCapacity((Node({"CPU": 2}),), (NodeType("gpu", {"CPU": 8, "GPU": 1}, 4),)))
    'there is 1 machine with CPU 2, and may be 4 more of gpu with CPU 8, GPU 1'
    """
    shapes = Counter(_format_request(node.resources) for node in capacity.nodes)
    here = ", ".join(f"{count} machine{'s' * (count > 1)} with {shape}" for shape, count in shapes.items())
    there = f"there {'are' if len(capacity.nodes) > 1 else 'is'} {here or 'no machine'}"
    if capacity.types is None:
        return f"{there}; whether it can grow is unknown"
    growth = capacity.startable_nodes()
    more = [
        f"{'any number' if (count := growth[kind.name]) is None else count} more of {kind.name} "
        f"with {_format_request(kind.resources)}"
        for kind in capacity.types
        if growth[kind.name] != 0
    ]
    return there + (f", and may be {', '.join(more)}{_describe_total_limit(capacity)}" if more else "")


def _describe_total_limit(capacity: ClusterCapacity) -> str:
    """The bound on machines of all types together, where it says more than those of each type."""
    limits = [kind.max_nodes for kind in capacity.types or ()]
    known = [limit for limit in limits if limit is not None]
    if capacity.max_workers is None or (len(known) == len(limits) and sum(known) <= capacity.max_workers):
        return ""
    return f", {capacity.max_workers} at once in all"


def _format_request(resources: Request) -> str:
    custom = sorted(name for name in resources if name not in (*_SHOWN, *_HIDDEN) and ":" not in name)
    shown = [name for name in (*_SHOWN, *custom) if name == "CPU" or resources.get(name, 0)]
    return ", ".join(f"{name} {resources.get(name, 0):g}" for name in shown)


def local_capacity(config: RunConfig) -> ClusterCapacity:
    """This machine as a Ray started here would offer it."""
    gpus = {"GPU": float(_gpus())} if config.resources.gpus_per_worker > 0 else {}
    custom = dict.fromkeys(config.resources.worker_resources, UNBOUND)
    return ClusterCapacity((Node({"CPU": float(config.resources.cpus or os.cpu_count() or 1), **gpus, **custom}),))


def _gpus() -> int:
    import torch

    return int(torch.cuda.device_count())
