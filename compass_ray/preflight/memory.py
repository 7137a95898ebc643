"""Check that the base model and the training of an adapter fit into the memory of a worker: an estimate.

Key property: only weights and adapter that cannot fit block a run. The length of rows is unknown before they are read, so
the memory left for them is reported as a number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.cluster_capacity import ClusterCapacity, Request, accelerator_type, count_fitting
from compass_ray.config import RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import hub_id
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.model_size import ModelSize, TrainingMemory, model_size, training_memory

_GB = 1e9
_GPU_GB = {
    "A10G": 24, "A100": 40, "A100-40G": 40, "A100-80G": 80, "B200": 180, "B300": 270, "GB200": 180, "GB300": 270, "H100": 80,
    "H20": 96, "H200": 141, "K80": 12, "L4": 24, "L40S": 48, "P4": 8, "P100": 16, "RTX-PRO-6000": 96, "T4": 16, "V100": 16,
}  # fmt: skip
"""Memory by Ray's accelerator name; the smallest variant of each name."""
_USABLE = 0.94
"""Usable share of a GPU's memory, after driver, CUDA context and allocator fragmentation."""


@dataclass(frozen=True)
class AvailableMemory:
    """Bytes of memory that one worker has, and the device."""

    available: float
    device: str


def check_memory(context: CheckContext) -> list[CheckResult]:
    """Compare the base model and its training with the memory of one worker."""
    if not context.needs_base():
        return []
    config = context.config
    try:
        size = model_size(config.train)
    except ModelError as error:
        # check_models reports other problems of the base model.
        return [_unusable_base(config, str(error))]
    needs = training_memory(size, config.train, checkpointing=config.train.gradient_checkpointing)
    memories = _list_available(config, context.environment.capacity, cluster=context.environment.is_cluster)
    if not memories:
        return [CheckResult("memory", f"{_describe_estimate(size, needs)}; the memory of a worker's GPU is unknown")]
    smallest, largest = min(memories, key=lambda memory: memory.available), max(memory.available for memory in memories)
    return [_compare_with_memory(config, size, needs, smallest, largest)]


def _unusable_base(config: RunConfig, error: str) -> CheckResult:
    """The result if the size is unknown. A local model whose size is unknown cannot be loaded either."""
    if "target_modules" in error:
        remedy = "set train.adapter.target_modules to layers of the model"
        return CheckResult("memory", error, remedy, blocking=True, by="settings")
    is_here = hub_id(config.train.base_model) is None
    remedy = "set train.base_model to the folder of a causal language model" if is_here else "memory is not estimated"
    return CheckResult("memory", f"train.base_model: {error}", remedy, blocking=is_here, by="settings")


def _compare_with_memory(
    config: RunConfig, size: ModelSize, needs: TrainingMemory, memory: AvailableMemory, largest: float
) -> CheckResult:
    found = f"{_describe_estimate(size, needs)}; a worker has {memory.available / _GB:.1f} GB of {memory.device}"
    if needs.weights + needs.adapter > memory.available:
        remedy = "use a smaller base model, train.dtype=bfloat16, a larger GPU, or fewer workers per machine"
        return CheckResult("memory", found, remedy, blocking=needs.weights + needs.adapter > largest, by="settings")
    tokens = needs.max_tokens_within(memory.available)
    found += f"; the rest holds about {tokens:,} tokens at once"
    if tokens >= config.train.max_tokens:
        return CheckResult("memory", found)
    saving = "" if config.train.gradient_checkpointing else "set train.gradient_checkpointing=true, or "
    return CheckResult("memory", f"{found}, but a row may have {config.train.max_tokens:,}", f"{saving}lower train.max_tokens")


def _describe_estimate(size: ModelSize, needs: TrainingMemory) -> str:
    parts = f"weights {needs.weights / _GB:.2f} GB, adapter with optimiser {needs.adapter / _GB:.2f} GB"
    return f"estimated: {size.parameters / 1e6:,.0f} million parameters, {parts}, {needs.token / 1e6:.2f} MB per token"


def _list_available(config: RunConfig, capacity: ClusterCapacity, *, cluster: bool) -> list[AvailableMemory]:
    """Memory of a worker on each kind of machine that can run one, where it is known."""
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
    suitable = [shape for shape in shapes if shape.get("memory") and count_fitting(shape, request)]
    return [_share_of_machine(shape["memory"], config, shape, request) for shape in suitable]


def _share_of_machine(total: float, config: RunConfig, resources: Request, request: Request) -> AvailableMemory:
    """Memory of one worker: the machine's memory divided by the workers that run there at once."""
    pooled = config.train.layout == "pooled"
    wanted = config.resources.train_workers if pooled else config.resources.train_concurrency
    sharing = max(min(count_fitting(resources, request) or 1, wanted), 1)
    return AvailableMemory(total / sharing, f"memory ({total / _GB:.1f} GB shared by {sharing})" if sharing > 1 else "memory")
