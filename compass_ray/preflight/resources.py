"""Whether what each stage asks for can ever be had here: said at once, not as a job that stays pending.

Key property: a request is set against what single machines hold, present ones and those that the autoscaler may start.
Where it is unknown what may start, a request that no present machine holds is told and does not stop the run.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from compass_ray.artifacts import fully_tuned
from compass_ray.capacity import Capacity, Node, Request
from compass_ray.config import RunConfig
from compass_ray.config.resources import UNBOUND
from compass_ray.preflight.findings import Asked, Finding
from compass_ray.preflight.hub import uses

_SHOWN = ("CPU", "GPU")
_HIDDEN = ("memory", "object_store_memory")


@dataclass(frozen=True)
class Wish:
    """What a stage asks for: so many requests that must all find room at once, and the setting that says how many."""

    stage: str
    request: Request
    at_once: int = 1
    workers: str = ""


def wishes(config: RunConfig) -> list[Wish]:
    """What each stage asks for at the least.

    One worker, where a stage makes do with as many as find room; all workers of a training, where they start together.
    """
    resources = config.resources
    plain = {"CPU": resources.cpus_per_worker}
    worker = resources.worker()
    together = resources.adapter_workers if config.train.layout == "per_language" else 1
    from_hub = any(use.repository.kind == "dataset" for use in uses(config))
    return [
        *([Wish("pool", plain)] if from_hub else []),  # what lies here is read on this machine, for no CPU
        Wish("embed", worker),
        Wish("cluster", worker),
        *([Wish("tune", worker)] if config.select.budget == "tuned" else []),
        Wish("select", plain),
        Wish("train", worker, together, "resources.adapter_workers"),
        *([Wish("full", worker, resources.full_workers, "resources.full_workers")] if fully_tuned(config) else []),
        Wish("evaluate", worker),
    ]


def check_resources(asked: Asked) -> list[Finding]:
    """Every stage whose request can never be met, or what there is."""
    capacity, told = asked.around.capacity, described(asked.around.capacity)
    merged: dict[tuple[str, bool], list[Wish]] = {}
    for wish in wishes(asked.config):
        if wish.stage in asked.stages and (found := _unmet(wish, capacity)):
            merged.setdefault((found, capacity.types is None), []).append(wish)
    if not merged:
        return [Finding("resources", f"{told}; one worker asks for {_amounts(wishes(asked.config)[-1].request)}")]
    return [_finding(found, unknown, group, asked, told) for (found, unknown), group in merged.items()]


def _unmet(wish: Wish, capacity: Capacity) -> str:
    """What is wrong with a wish; nothing where it can be met."""
    if not capacity.fits(wish.request):
        return f"asks for {_amounts(wish.request)} on one machine"
    most = capacity.at_most(wish.request)
    return "" if most is None or most >= wish.at_once else f"asks for {wish.at_once} times {_amounts(wish.request)}, {most} fit"


def _finding(found: str, unknown: bool, group: list[Wish], asked: Asked, told: str) -> Finding:
    """One shortage of several stages."""
    stages, request = ", ".join(wish.stage for wish in group), group[0].request
    too_many = asked.around.capacity.fits(request)
    fewer = [" and ".join(wish.workers for wish in group)] if too_many else []
    larger = "raise resources.cpus" if "GPU" not in request else "name a cluster with RAY_ADDRESS"
    more = f"add {'more machines' if too_many else 'a larger node type'}" if asked.around.cluster else larger
    return Finding(
        "resources",
        f"{stages}: {found}; {told}",
        f"lower {', or '.join([_named(request), *fewer, more])}",
        blocking=not unknown,
        by="settings",
    )


def _named(request: Request) -> str:
    """The settings behind a request."""
    custom = " or resources.worker_resources" if request.keys() - {*_SHOWN} else ""
    return "resources.cpus_per_worker" + (" or resources.gpus_per_worker" if "GPU" in request else "") + custom


def described(capacity: Capacity) -> str:
    """What a cluster is and can grow to, in words.

    >>> from compass_ray.capacity import Node, NodeType
    >>> described(Capacity((Node({"CPU": 2}),), (NodeType("gpu", {"CPU": 8, "GPU": 1}, 4),)))
    'there is 1 machine with CPU 2, and may be 4 more of gpu with CPU 8, GPU 1'
    """
    shapes = Counter(_amounts(node.resources) for node in capacity.nodes)
    here = ", ".join(f"{count} machine{'s' * (count > 1)} with {shape}" for shape, count in shapes.items())
    there = f"there {'are' if len(capacity.nodes) > 1 else 'is'} {here or 'no machine'}"
    if capacity.types is None:
        return f"{there}; whether it can grow is unknown"
    growth = capacity.growth()
    more = [
        f"{'any number' if growth[kind.name] is None else growth[kind.name]} more of {kind.name} with {_amounts(kind.resources)}"
        for kind in capacity.types
        if growth[kind.name] != 0
    ]
    return there + (f", and may be {', '.join(more)}{_bound(capacity)}" if more else "")


def _bound(capacity: Capacity) -> str:
    """The bound on machines of all types together, where it says more than those of each type."""
    limits = [kind.at_most for kind in capacity.types or ()]
    known = [limit for limit in limits if limit is not None]
    if capacity.max_workers is None or (len(known) == len(limits) and sum(known) <= capacity.max_workers):
        return ""
    return f", {capacity.max_workers} at once in all"


def _amounts(resources: Request) -> str:
    custom = sorted(name for name in resources if name not in (*_SHOWN, *_HIDDEN) and ":" not in name)
    shown = [name for name in (*_SHOWN, *custom) if name == "CPU" or resources.get(name, 0)]
    return ", ".join(f"{name} {resources.get(name, 0):g}" for name in shown)


def local(config: RunConfig) -> Capacity:
    """This machine as a Ray started here would offer it."""
    gpus = {"GPU": float(_gpus())} if config.resources.gpus_per_worker > 0 else {}
    custom = dict.fromkeys(config.resources.worker_resources, UNBOUND)
    return Capacity((Node({"CPU": float(config.resources.cpus or os.cpu_count() or 1), **gpus, **custom}),))


def _gpus() -> int:
    import torch

    return int(torch.cuda.device_count())
