"""Open vLLM for a configuration: base model without weights, arguments, environment variables, sizes of this machine."""

from __future__ import annotations

import logging
import os

import torch

from compass_ray.config import RunConfig
from compass_ray.engine.kv_cache import derive_max_model_len
from compass_ray.engine.vllm_backend.async_engine import VLLMEngine
from compass_ray.engine.vllm_backend.engine_arguments import build_arguments, cpu_cache_bytes
from compass_ray.models.base_model import load_base_without_weights
from compass_ray.models.model_resolver import resolve_model

logger = logging.getLogger(__name__)
_UNRESERVED = "engine: vLLM uses a GPU that Ray does not reserve; set resources.replica_gpus=%d"
_VARIABLES = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_CPU_VARIABLES = {
    # Threads that wait actively, or that are bound to cores, take them from other processes of the machine.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "KMP_BLOCKTIME": "0",
    # With adapters, vLLM compiles only one small function on a CPU. That needs a compiler, and delays the first reply.
    "TORCHDYNAMO_DISABLE": "1",
}


def open_vllm_engine(config: RunConfig) -> VLLMEngine:
    """vLLM for a configuration, without adapters.

    Raises:
        ModelError: the base model cannot be loaded, or vLLM does not start.
    """
    is_cpu = not torch.cuda.is_available()
    if not is_cpu and not config.resources.replica_gpus:
        logger.warning(_UNRESERVED, config.serve.vllm.tensor_parallel)
    _set_variables(config.resources.threads_per_worker, is_cpu=is_cpu)
    base = load_base_without_weights(config.train)
    arguments = build_arguments(config, resolve_model(config.train.base_model, "base_model"))
    arguments["max_model_len"] = min(arguments["max_model_len"], derive_max_model_len(base.model))
    if is_cpu:
        weights = sum(parameter.nbytes for parameter in base.model.parameters())
        arguments.setdefault("kv_cache_memory_bytes", cpu_cache_bytes(config, weights))
    return VLLMEngine(base, arguments)


def _set_variables(threads: int, *, is_cpu: bool) -> None:
    """Set vLLM's variables before it is imported. Values that the user set are kept, except Ray's number of threads."""
    for name, value in (_VARIABLES | (_CPU_VARIABLES if is_cpu else {})).items():
        os.environ.setdefault(name, value)
    if is_cpu:
        os.environ["OMP_NUM_THREADS"] = str(threads)
