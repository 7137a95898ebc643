"""Check that weights, adapter slots and key-value cache of vLLM fit into the memory of a replica: an estimate.

Key property: no weights are read. Slots are counted for every layer that can have an adapter, since vLLM allocates them at its
start. Ranks of tensor parallelism divide a part of them, so their size is an upper limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compass_ray.config import RunConfig
from compass_ray.engine.vllm_backend.engine_arguments import build_arguments, cpu_cache_bytes, list_unsupported_settings
from compass_ray.models.errors import ModelError
from compass_ray.models.token_memory import GIB, USABLE_OF_GPU, replica_memory
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.gpu_memory import GB, list_gpu_memory
from compass_ray.preflight.model_size import ModelSize, model_size

_NAME = "memory of vLLM"
_FLOAT32 = 4
_LOGIT = 2 * _FLOAT32
"""Bytes per logit of a decoding step: float32, twice for sampled tokens."""
_NO_ROOM = (
    "raise serve.vllm.tensor_parallel with resources.replica_gpus, lower max_loras in serve.vllm.arguments, "
    "or use train.dtype=bfloat16 or a larger GPU"
)


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank beside its key-value cache. A rank is a GPU, or a process on a CPU."""

    weights: float
    slots: float
    """Factors of ``max_loras`` adapters, and the plugin's tables of s - 1."""
    step: float
    """Activations and logits of a step."""

    @property
    def total(self) -> float:
        """Bytes of all of them."""
        return self.weights + self.slots + self.step


@dataclass(frozen=True)
class RankLimit:
    """Bytes that one rank may use, its device, and its key-value cache if that has a size of its own."""

    total: float
    device: str
    cache: float | None


def check_vllm_memory(context: CheckContext) -> list[CheckResult]:
    """Compare a replica of vLLM with the memory of its device, if vLLM is the engine."""
    config = context.config
    if config.serve.engine != "vllm" or list_unsupported_settings(config):
        return []
    arguments = build_arguments(config, config.train.base_model)
    if "quantization" in arguments:
        return [CheckResult(_NAME, "not estimated for quantised weights")]
    try:
        size = model_size(config.train)
    except ModelError:  # check_models reports it
        return []
    rank = estimate_rank(config, size, arguments)
    limits = _list_limits(context, size, arguments)
    if not limits:
        return [CheckResult(_NAME, f"{_describe(config, rank, arguments)}; the memory of a replica is unknown")]
    return [_compare(config, size, arguments, min(limits, key=lambda limit: limit.total))]


def estimate_rank(config: RunConfig, size: ModelSize, arguments: Mapping[str, Any]) -> RankMemory:
    """Memory of one rank; ``arguments`` are those of vLLM's engine."""
    slots, ranks = arguments["max_loras"], config.serve.vllm.tensor_parallel
    factors = slots * arguments["max_lora_rank"] * size.widths.inputs_and_outputs * size.shape.itemsize
    tables = (slots + 1) * size.widths.outputs * _FLOAT32
    logits = _LOGIT * config.serve.max_num_seqs * size.shape.vocabulary
    step = arguments["max_num_batched_tokens"] * size.shape.live_token() + logits
    return RankMemory(size.weights / ranks, factors + tables, step)


def _list_limits(context: CheckContext, size: ModelSize, arguments: Mapping[str, Any]) -> list[RankLimit]:
    """One for each kind of machine that can hold a replica, where its memory is known."""
    config, cache = context.config, arguments.get("kv_cache_memory_bytes")
    gpus, ranks = config.resources.replica_gpus, config.serve.vllm.tensor_parallel
    if gpus:
        share = arguments["gpu_memory_utilization"] if cache is None else USABLE_OF_GPU * min(gpus, 1.0)
        found = list_gpu_memory(context.environment.capacity, _request(config), is_cluster=context.environment.is_cluster)
        return [RankLimit(total * share, name, cache) for name, total in found.items()]
    if context.environment.is_cluster or config.resources.replica_resources:
        return []
    own = cpu_cache_bytes(config, size.weights) if cache is None else cache
    return [RankLimit(replica_memory(config.resources, "cpu") / ranks, "memory", own)]


def _request(config: RunConfig) -> dict[str, float]:
    """What one machine of a replica provides. With Ray as its executor, each GPU may be on another machine."""
    is_spread = config.serve.vllm.arguments.get("distributed_executor_backend") == "ray"
    return {"GPU": 1.0} if is_spread else config.resources.resources_per_replica()


def _compare(config: RunConfig, size: ModelSize, arguments: Mapping[str, Any], limit: RankLimit) -> CheckResult:
    rank, tokens = estimate_rank(config, size, arguments), arguments["max_model_len"]
    request = size.shape.slot(tokens) / config.serve.vllm.tensor_parallel
    rest = limit.total - rank.total
    cache = rest if limit.cache is None else limit.cache
    found = f"{_describe(config, rank, arguments)}; {limit.total / GB:.1f} GB of {limit.device} can be used"
    if rest < request:
        return CheckResult(_NAME, f"{found}, which leaves no room for a request of {tokens:,} tokens", _NO_ROOM)
    found += f", key-value cache {cache / GB:.2f} GB"
    if cache > rest:
        return CheckResult(_NAME, found, f"set serve.kv_cache_gib to at most {_floor_gib(rest)}")
    if cache < request:
        return CheckResult(_NAME, f"{found}, too small for {tokens:,} tokens", "raise serve.kv_cache_gib")
    requests = min(int(cache / request) if request else config.serve.max_num_seqs, config.serve.max_num_seqs)
    return CheckResult(_NAME, f"{found} for {requests} requests of {tokens:,} tokens at once")


def _floor_gib(size: float) -> float:
    return int(10 * size / GIB) / 10


def _describe(config: RunConfig, rank: RankMemory, arguments: Mapping[str, Any]) -> str:
    ranks = config.serve.vllm.tensor_parallel
    each = f" for each of {ranks} ranks" if ranks > 1 else ""
    slots = f"{arguments['max_loras']} adapter slots {rank.slots / GB:.2f} GB"
    return f"estimated{each}: weights {rank.weights / GB:.2f} GB, {slots}, a step {rank.step / GB:.2f} GB"
