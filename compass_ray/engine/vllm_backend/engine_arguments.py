"""The arguments of vLLM's engine for a configuration, and the settings that do not go with vLLM.

They load neither vLLM nor torch, so preflight uses them on any machine.
"""

from __future__ import annotations

from typing import Any

from compass_ray.config import RunConfig
from compass_ray.engine.vllm_backend.errors import BLEND_REFUSED
from compass_ray.models.token_memory import GIB, kv_cache_gib, replica_memory

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of ``max_lora_rank`` that vLLM accepts."""
SETTINGS_BY_ARGUMENT = {
    "model": "train.base_model",
    "revision": "train.revision",
    "code_revision": "train.code_revision",
    "trust_remote_code": "train.trust_remote_code",
    "dtype": "train.dtype",
    "max_num_seqs": "serve.max_num_seqs",
    "max_model_len": "serve.max_prompt_tokens and serve.max_tokens",
    "tensor_parallel_size": "serve.vllm.tensor_parallel",
}
"""Arguments of vLLM that have a setting of their own."""
FIXED_ARGUMENTS = (
    "enable_lora",
    "skip_tokenizer_init",
    "data_parallel_size",
    "pipeline_parallel_size",
    "fully_sharded_loras",
    "logprobs_mode",
    "max_logprobs",
    "disable_log_stats",
)
"""Arguments that the service depends on."""
CODE_ARGUMENTS = ("worker_cls", "worker_extension_cls", "logits_processors", "scheduler_cls", "hf_config_path")
"""Arguments that let vLLM run code of the caller's choice."""
EXECUTORS = ("uni", "mp", "ray")
"""Values of ``distributed_executor_backend``. vLLM imports any other one as a class."""
UNSERVED_VERSIONS = 64
"""Resident versions beyond live, canary and shadow ones: requested by name, or replaced and still in use."""
_GPU_SHARE = 0.9


def build_arguments(config: RunConfig, model: str) -> dict[str, Any]:
    """Arguments of ``AsyncEngineArgs`` for a configuration; ``model`` is the base model's folder or hub id.

    ``max_loras`` is the number of adapters of one batch. More adapters stay in the memory of the machine, where
    ``max_cpu_loras`` has room for all that may be resident. So no adapter is read again from disk.
    """
    settings, adapter = config.serve, config.train.adapter
    slots = min(2 * len(config.languages), settings.max_num_seqs)
    derived = {
        "model": model,
        "revision": config.train.revision,
        "code_revision": config.train.code_revision,
        "trust_remote_code": config.train.trust_remote_code,
        "dtype": config.train.dtype,
        "max_num_seqs": settings.max_num_seqs,
        "max_model_len": settings.max_prompt_tokens + settings.max_tokens,
        "tensor_parallel_size": settings.vllm.tensor_parallel,
        "max_num_batched_tokens": settings.prefill_chunk_tokens + settings.max_num_seqs,
        "enable_chunked_prefill": True,
        "enable_lora": True,
        "max_loras": slots,
        "max_cpu_loras": 3 * len(config.languages) + UNSERVED_VERSIONS,
        "max_lora_rank": next((rank for rank in RANKS if rank >= adapter.r), RANKS[-1]),
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        **_memory_arguments(config),
    }
    return derived | settings.vllm.arguments


def _memory_arguments(config: RunConfig) -> dict[str, Any]:
    """The set size of the key-value cache, or the share of a GPU. On a CPU the size is derived when the engine opens."""
    if config.serve.kv_cache_gib is not None:
        return {"kv_cache_memory_bytes": int(config.serve.kv_cache_gib * GIB)}
    gpus = config.resources.replica_gpus
    return {"gpu_memory_utilization": _GPU_SHARE * min(gpus, 1.0)} if gpus else {}


def cpu_cache_bytes(config: RunConfig, weights: float) -> int:
    """Key-value cache of each rank on a CPU of this machine, if no size is set; ``weights`` are the bytes of the base model.

    The ranks share what the engine of this package would take.
    """
    total = kv_cache_gib(replica_memory(config.resources, "cpu"), weights) * GIB
    return int(total / config.serve.vllm.tensor_parallel)


def list_unsupported_settings(config: RunConfig) -> list[str]:
    """Settings of a configuration that do not go with vLLM, each with what to do. Empty with another engine.

    >>> from compass_ray.config import load_run_config
    >>> blends = load_run_config("atlas-test", overrides=["serve.engine=vllm", "identifier.blend_adapters=true"])
    >>> list_unsupported_settings(blends)
    ['vLLM cannot blend two adapters; set identifier.blend_adapters=false, or serve.engine=compass']
    """
    if config.serve.engine != "vllm":
        return []
    found = [BLEND_REFUSED] if config.identifier.blend_adapters else []
    found += [refusal for name in config.serve.vllm.arguments if (refusal := _refuse_argument(name))]
    found += _find_gpu_problems(config)
    if config.train.adapter.r > RANKS[-1]:
        found.append(f"train.adapter.r is {config.train.adapter.r}, but vLLM's adapters have at most rank {RANKS[-1]}")
    return found


def _refuse_argument(name: str) -> str | None:
    if setting := SETTINGS_BY_ARGUMENT.get(name):
        return f"serve.vllm.arguments has {name}; set {setting} instead"
    if name in FIXED_ARGUMENTS:
        return f"serve.vllm.arguments has {name}, which the service sets; remove it"
    if name in CODE_ARGUMENTS:
        return f"serve.vllm.arguments has {name}, which loads code; remove it"
    return None


def _find_gpu_problems(config: RunConfig) -> list[str]:
    ranks, gpus = config.serve.vllm.tensor_parallel, config.resources.replica_gpus
    executor = config.serve.vllm.arguments.get("distributed_executor_backend")
    remedy = f"set resources.replica_gpus={ranks}"
    if executor not in (None, *EXECUTORS):
        return [f"distributed_executor_backend of serve.vllm.arguments is {executor}; set {' or '.join(EXECUTORS)}"]
    if executor == "ray" and not gpus:
        return [f"distributed_executor_backend of serve.vllm.arguments is ray, but resources.replica_gpus is 0; {remedy}"]
    if gpus and ranks > 1 and gpus != ranks:
        return [f"serve.vllm.tensor_parallel is {ranks}, but resources.replica_gpus is {gpus:g}; {remedy}"]
    return []
