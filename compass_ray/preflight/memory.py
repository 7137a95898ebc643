"""Whether the base model and the training of an adapter on it have room where a worker runs: an estimate, and told as one.

Key property: only weights and adapter that cannot fit stop a run. How long rows are is not known before they are read, so
what is left for them is told as a number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.cluster_capacity import ClusterCapacity, Request, accelerator_type, count_fitting
from compass_ray.config import RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.model_size import ModelSize, TrainingMemory, model_size, training_memory

_GB = 1e9
_GPU_GB = {
    "A10G": 24, "A100": 40, "A100-40G": 40, "A100-80G": 80, "B200": 180, "B300": 270, "GB200": 180, "GB300": 270, "H100": 80,
    "H20": 96, "H200": 141, "K80": 12, "L4": 24, "L40S": 48, "P4": 8, "P100": 16, "RTX-PRO-6000": 96, "T4": 16, "V100": 16,
}  # fmt: skip
"""By the names that Ray gives GPUs; the smallest of a name."""
_USABLE = 0.94
"""Of a GPU's memory, what its driver, CUDA's own state and the allocator's gaps leave."""


@dataclass(frozen=True)
class AvailableMemory:
    """Bytes that one worker has, and of what."""

    available: float
    device: str


def check_memory(asked: CheckContext) -> list[CheckResult]:
    """The base model and its training against the memory of one worker."""
    if not asked.needs_base():
        return []
    config = asked.config
    try:
        size = model_size(config.train)
    except ModelError as error:
        # What is wrong with the base model itself is told where it is looked for.
        wrong_layers = "target_modules" in str(error)
        remedy = "name layers that it has" if wrong_layers else "the estimate is left out"
        return [CheckResult("memory", str(error), remedy, blocking=wrong_layers, by="settings")]
    needs = training_memory(size, config.train, checkpointing=config.train.gradient_checkpointing)
    rooms = _list_available(config, asked.environment.capacity, cluster=asked.environment.is_cluster)
    if not rooms:
        return [CheckResult("memory", f"{_describe_estimate(size, needs)}; what a worker's GPU holds is unknown")]
    return [
        _compare_with_memory(config, size, needs, min(rooms, key=lambda room: room.available), max(r.available for r in rooms))
    ]


def _compare_with_memory(
    config: RunConfig, size: ModelSize, needs: TrainingMemory, room: AvailableMemory, largest: float
) -> CheckResult:
    told = f"{_describe_estimate(size, needs)}; a worker has {room.available / _GB:.1f} GB of {room.device}"
    if needs.weights + needs.adapter > room.available:
        remedy = "take a smaller base, dtype bfloat16, a larger GPU, or fewer workers a machine"
        return CheckResult("memory", told, remedy, blocking=needs.weights + needs.adapter > largest, by="settings")
    tokens = needs.max_tokens_within(room.available)
    told += f"; about {tokens:,} tokens at once fit beside them"
    if tokens >= config.train.max_tokens:
        return CheckResult("memory", told)
    saving = "" if config.train.gradient_checkpointing else "set train.gradient_checkpointing=true, or "
    return CheckResult("memory", f"{told}, a row may have {config.train.max_tokens:,}", f"{saving}lower train.max_tokens")


def _describe_estimate(size: ModelSize, needs: TrainingMemory) -> str:
    parts = f"weights {needs.weights / _GB:.2f} GB, adapter with optimiser {needs.adapter / _GB:.2f} GB"
    return f"estimated: {size.parameters / 1e6:,.0f} million parameters, {parts}, {needs.token / 1e6:.2f} MB a token"


def _list_available(config: RunConfig, capacity: ClusterCapacity, *, cluster: bool) -> list[AvailableMemory]:
    """What a worker has on each kind of machine that can hold one, as far as that is known."""
    share = config.resources.gpus_per_worker
    request = {"CPU": config.resources.cpus_per_worker, "GPU": share}
    if share > 0:
        return _gpus(capacity, request) if cluster else _own_gpu(share)
    return _cluster_memory(config, capacity, request) if cluster else [_own_memory(config, capacity, request)]


def _gpus(capacity: ClusterCapacity, request: Request) -> list[AvailableMemory]:
    shapes = [n.resources for n in capacity.nodes] + [kind.resources for kind in capacity.types or ()]
    names = {accelerator_type(shape) for shape in shapes if count_fitting(shape, request)}
    share = max(request["GPU"], 1.0) if request["GPU"] >= 1 else request["GPU"]
    return [
        AvailableMemory(_GPU_GB[name] * _GB * _USABLE * min(share, 1.0), name)
        for name in sorted(filter(None, names))
        if name in _GPU_GB
    ]


def _own_gpu(share: float) -> list[AvailableMemory]:
    import torch

    if not torch.cuda.is_available():
        return []
    gpu = torch.cuda.get_device_properties(0)
    return [AvailableMemory(gpu.total_memory * _USABLE * min(share, 1.0), gpu.name)]


def _own_memory(config: RunConfig, capacity: ClusterCapacity, request: Request) -> AvailableMemory:
    import psutil

    return _share_of_machine(psutil.virtual_memory().total, config, capacity.nodes[0].resources, request)


def _cluster_memory(config: RunConfig, capacity: ClusterCapacity, request: Request) -> list[AvailableMemory]:
    shapes = [n.resources for n in capacity.nodes] + [kind.resources for kind in capacity.types or ()]
    able = [shape for shape in shapes if shape.get("memory") and count_fitting(shape, request)]
    return [_share_of_machine(shape["memory"], config, shape, request) for shape in able]


def _share_of_machine(total: float, config: RunConfig, resources: Request, request: Request) -> AvailableMemory:
    """A machine's memory among the workers that it holds at once."""
    pooled = config.train.layout == "pooled"
    wanted = config.resources.train_workers if pooled else config.resources.train_concurrency
    sharing = max(min(count_fitting(resources, request) or 1, wanted), 1)
    return AvailableMemory(total / sharing, f"memory ({total / _GB:.1f} GB among {sharing})" if sharing > 1 else "memory")
