"""Check that training, scoring and serving fit into the memory of a worker, and report the sizes of their batches: an estimate.

Key property: only weights and adapter that cannot fit block a run. Sizes that are not set are those that a worker derives from
its memory (`models.token_memory`). A set size that does not fit is reported with the largest one that does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from compass_ray.cluster_capacity import ClusterCapacity, Request, count_fitting
from compass_ray.config import RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import hub_id
from compass_ray.models.token_memory import (
    GIB,
    USABLE_OF_GPU,
    USABLE_OF_MACHINE,
    kv_cache_gib,
    machine_memory,
    training_workers,
)
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.gpu_memory import GB, list_gpu_memory
from compass_ray.preflight.model_size import ModelSize, model_size


@dataclass(frozen=True)
class AvailableMemory:
    """Bytes of memory that one worker has, the device, and the share of it that batches may use."""

    available: float
    device: str
    usable_share: float = 1.0
    machine: float = 0.0
    """Bytes of the machine that its workers share."""

    @property
    def usable(self) -> float:
        """Bytes that a worker may use."""
        return self.available * self.usable_share


def check_memory(context: CheckContext) -> list[CheckResult]:
    """Compare training, scoring and serving with the memory of one worker."""
    if not context.needs_base():
        return []
    config = context.config
    try:
        size = model_size(config.train)
    except ModelError as error:
        # check_models reports other problems of the base model.
        return [_unusable_base(config, str(error))]
    capacity, cluster = context.environment.capacity, context.environment.is_cluster
    request = {"CPU": config.resources.cpus_per_worker, "GPU": config.resources.gpus_per_worker}
    trainers = _list_available(capacity, request, training_workers(config.resources, config.train.layout), cluster=cluster)
    if not trainers:
        return [CheckResult("memory", f"{_describe_estimate(config, size)}; the memory of a worker's GPU is unknown")]
    scorers = _list_available(capacity, request, config.resources.train_workers, cluster=cluster)
    return [
        _check_training(config, size, trainers),
        _check_scoring(config, size, scorers),
        *_check_serving(context, size),
    ]


def _unusable_base(config: RunConfig, error: str) -> CheckResult:
    """The result if the size is unknown. A local model whose size is unknown cannot be loaded either."""
    if "target_modules" in error:
        remedy = "set train.adapter.target_modules to layers of the model"
        return CheckResult("memory", error, remedy, blocking=True, by="settings")
    is_here = hub_id(config.train.base_model) is None
    remedy = "set train.base_model to the folder of a causal language model" if is_here else "memory is not estimated"
    return CheckResult("memory", f"train.base_model: {error}", remedy, blocking=is_here, by="settings")


def _check_training(config: RunConfig, size: ModelSize, memories: list[AvailableMemory]) -> CheckResult:
    memory, largest = _smallest(memories), max(each.available for each in memories)
    found = f"{_describe_estimate(config, size)}; a worker has {memory.available / GB:.1f} GB of {memory.device}"
    needed = size.weights + size.optimizer
    if needed > memory.available:
        remedy = "use a smaller base model, train.dtype=bfloat16, a larger GPU, or fewer workers per machine"
        return CheckResult("memory", found, remedy, blocking=needed > largest, by="settings")
    checkpointing, device = config.train.gradient_checkpointing, _device_type(config)
    token = size.shape.trained_token(checkpointing=checkpointing)
    fitting = size.shape.trained_tokens(memory.usable, size.training, device, checkpointing=checkpointing)
    saving = "" if checkpointing else "set train.gradient_checkpointing=true, or "
    wanted = config.train.micro_batch_tokens
    if wanted is not None and wanted > (fitting := max(fitting, _tokens_that_fit(memory, size.training, token))):
        found += f"; train.micro_batch_tokens is {wanted:,}, but about {fitting:,} tokens fit at once"
        return CheckResult("memory", found, f"{saving}lower train.micro_batch_tokens or leave it unset")
    found += f"; {wanted or fitting:,} tokens at once (train.micro_batch_tokens{'' if wanted else ', derived'})"
    if fitting >= config.train.max_tokens:
        return CheckResult("memory", found)
    return CheckResult("memory", f"{found}, but a row may have {config.train.max_tokens:,}", f"{saving}lower train.max_tokens")


def _check_scoring(config: RunConfig, size: ModelSize, memories: list[AvailableMemory]) -> CheckResult:
    name, memory = "memory of scoring", _smallest(memories)
    fitting, wanted = size.shape.scored_tokens(memory.usable, size.scoring, _device_type(config)), config.evaluate.batch_tokens
    found = f"estimated: {size.scoring / GB:.2f} GB and {size.shape.scored_token() / 1e6:.2f} MB per token"
    if wanted is not None and wanted > (
        fitting := max(fitting, _tokens_that_fit(memory, size.scoring, size.shape.scored_token()))
    ):
        found += f"; evaluate.batch_tokens is {wanted:,}, but about {fitting:,} tokens fit at once"
        return CheckResult(name, found, "lower evaluate.batch_tokens or leave it unset")
    return CheckResult(
        name, f"{found}; {wanted or fitting:,} tokens at once (evaluate.batch_tokens{'' if wanted else ', derived'})"
    )


def _check_serving(context: CheckContext, size: ModelSize) -> list[CheckResult]:
    """The memory of a replica. Nothing if replicas use vLLM (see `vllm_memory`), or the model has no attention."""
    name, config = "memory of serving", context.config
    if config.serve.engine == "vllm" or not size.shape.kv_width:
        return []
    fixed, slot = size.serving(config.serve, adapters=len(config.languages)), size.slot(config.serve)
    found = f"estimated: {fixed / GB:.2f} GB, and {slot / GB:.2f} GB of key-value cache"
    memories = _list_replica_memory(context)
    if not memories:
        return [CheckResult(name, f"{found} for each request; the memory of a replica is unknown")]
    memory = _smallest(memories)
    limit = GIB * (config.serve.kv_cache_gib or kv_cache_gib(memory.usable, size.weights))
    requests = min(int(limit / slot), config.serve.max_num_seqs)
    found += f" for each of {requests} requests"
    if not requests:
        return [CheckResult(name, found, f"set serve.kv_cache_gib={slot / GIB + 0.1:.1f}, or lower serve.max_prompt_tokens")]
    if fixed + requests * slot <= memory.usable:
        return [CheckResult(name, found)]
    rest = math.floor(10 * (memory.usable - fixed) / GIB) / 10
    fits = f"set serve.kv_cache_gib={rest}" if rest * GIB >= slot else "use a smaller base model or train.dtype=bfloat16"
    return [CheckResult(name, f"{found}; a replica has about {memory.usable / GB:.1f} GB of {memory.device}", fits)]


def _list_replica_memory(context: CheckContext) -> list[AvailableMemory]:
    """Memory of one replica on each kind of machine that can run one, where it is known, as `replica_memory` divides it."""
    resources, environment = context.config.resources, context.environment
    request = resources.resources_per_replica()
    found = _list_available(environment.capacity, request, resources.replicas, cluster=environment.is_cluster)
    return found if resources.replica_gpus else [replace(each, available=each.machine / resources.replicas) for each in found]


def _tokens_that_fit(memory: AvailableMemory, fixed: int, token: int) -> int:
    """Tokens that fit beside ``fixed`` bytes, without the limit of a size that is derived."""
    return int((memory.usable - fixed) // token)


def _smallest(memories: list[AvailableMemory]) -> AvailableMemory:
    return min(memories, key=lambda memory: memory.available)


def _device_type(config: RunConfig) -> str:
    return "cuda" if config.resources.gpus_per_worker > 0 else "cpu"


def _describe_estimate(config: RunConfig, size: ModelSize) -> str:
    token = size.shape.trained_token(checkpointing=config.train.gradient_checkpointing)
    parts = f"weights {size.weights / GB:.2f} GB, adapter with optimiser {size.optimizer / GB:.2f} GB"
    logits = f"logits {size.shape.logit_slice() / GB:.2f} GB"
    return f"estimated: {size.parameters / 1e6:,.0f} million parameters, {parts}, {logits}, {token / 1e6:.2f} MB per token"


def _list_available(capacity: ClusterCapacity, request: Request, workers: int, *, cluster: bool) -> list[AvailableMemory]:
    """Memory of one of ``workers`` workers on each kind of machine that can run one, where it is known."""
    if share := request.get("GPU", 0):
        gpus = list_gpu_memory(capacity, request, is_cluster=cluster)
        return [AvailableMemory(total * USABLE_OF_GPU * min(share, 1.0), name) for name, total in gpus.items()]
    if cluster:
        return _cluster_memory(capacity, request, workers)
    return [_share_of_machine(machine_memory(), workers, capacity.nodes[0].resources, request)]


def _cluster_memory(capacity: ClusterCapacity, request: Request, workers: int) -> list[AvailableMemory]:
    shapes = [n.resources for n in capacity.nodes] + [kind.resources for kind in capacity.types or ()]
    suitable = [shape for shape in shapes if shape.get("memory") and count_fitting(shape, request)]
    return [_share_of_machine(shape["memory"], workers, shape, request) for shape in suitable]


def _share_of_machine(total: float, workers: int, resources: Request, request: Request) -> AvailableMemory:
    """Memory of one worker: the machine's memory divided by the workers that run there at once."""
    sharing = max(min(count_fitting(resources, request) or 1, workers), 1)
    device = f"memory ({total / GB:.1f} GB shared by {sharing})" if sharing > 1 else "memory"
    return AvailableMemory(total / sharing, device, USABLE_OF_MACHINE, total)
