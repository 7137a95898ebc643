"""The arguments of vLLM's engine follow the settings, and settings that it does not support are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compass_ray.config import ConfigError, load_run_config
from compass_ray.engine.vllm_backend.engine_arguments import UNSERVED_VERSIONS, build_arguments, list_unsupported_settings
from compass_ray.serving.engine_host.adapter_sync import MAX_UNSERVED_VERSIONS

ENGINE = "serve.engine=vllm"


def test_the_settings_of_the_service_are_vllm_s() -> None:
    changes = [ENGINE, "serve.max_num_seqs=48", "serve.kv_cache_gib=2", "train.adapter.r=20", "serve.vllm.tensor_parallel=2"]
    config = load_run_config("atlas-test", overrides=[*changes, "serve.vllm.arguments={max_loras: 5, enforce_eager: true}"])
    arguments = build_arguments(config, "/models/base")
    assert arguments["model"] == "/models/base"
    assert arguments["max_model_len"] == config.serve.max_prompt_tokens + config.serve.max_tokens
    assert arguments["max_lora_rank"] == 32
    assert arguments["kv_cache_memory_bytes"] == 2 << 30
    assert (arguments["max_num_seqs"], arguments["tensor_parallel_size"], arguments["dtype"]) == (48, 2, config.train.dtype)
    assert (arguments["max_loras"], arguments["enforce_eager"]) == (5, True)


def test_every_version_that_may_be_resident_has_room() -> None:
    """A version that vLLM evicts is read again during a step, where a failure ends the engine."""
    config = load_run_config("atlas-test", overrides=[ENGINE, "languages=[sw, hi, ru]"])
    served = 3 * len(config.languages)  # live, canary and shadow
    assert build_arguments(config, "base")["max_cpu_loras"] >= served + 2 * MAX_UNSERVED_VERSIONS
    assert UNSERVED_VERSIONS > MAX_UNSERVED_VERSIONS


def test_a_batch_has_no_more_slots_than_requests() -> None:
    config = load_run_config("atlas-test", overrides=[ENGINE, "serve.max_num_seqs=2", "languages=[sw, hi, ru]"])
    assert build_arguments(config, "base")["max_loras"] == 2


@pytest.mark.parametrize(("gpus", "share"), [(1, 0.9), (0.5, 0.45), (2, 0.9)])
def test_a_fraction_of_a_gpu_is_a_fraction_of_its_memory(gpus: float, share: float) -> None:
    config = load_run_config("atlas-test", overrides=[ENGINE, f"resources.replica_gpus={gpus}"])
    assert build_arguments(config, "base")["gpu_memory_utilization"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["identifier.blend_adapters=true"], r"identifier\.blend_adapters=false"),
        (["serve.vllm.arguments={max_num_seqs: 8}"], r"set serve\.max_num_seqs instead"),
        (["serve.vllm.arguments={enable_lora: false}"], "enable_lora, which the service sets"),
        (["serve.vllm.tensor_parallel=4", "resources.replica_gpus=1"], r"set resources\.replica_gpus=4"),
        (["serve.vllm.arguments={max_logprobs: 1}"], "max_logprobs, which the service sets; remove it"),
        (["serve.vllm.arguments={pipeline_parallel_size: 2}"], "pipeline_parallel_size, which the service sets; remove it"),
        (["serve.vllm.arguments={fully_sharded_loras: true}"], "fully_sharded_loras, which the service sets; remove it"),
        (["serve.vllm.arguments={worker_cls: module.Worker}"], "worker_cls, which loads code; remove it"),
        (["serve.vllm.arguments={logits_processors: [a.B]}"], "logits_processors, which loads code; remove it"),
        (["serve.vllm.arguments={distributed_executor_backend: a.B}"], "is a.B; set uni or mp or ray"),
        (
            ["serve.vllm.tensor_parallel=2", "serve.vllm.arguments={distributed_executor_backend: ray}"],
            r"is ray, but resources\.replica_gpus is 0; set resources\.replica_gpus=2",
        ),
        (["train.adapter.r=1024"], "at most rank 512"),
    ],
)
def test_what_vllm_does_not_support_is_named(changes: list[str], message: str) -> None:
    (found,) = list_unsupported_settings(load_run_config("atlas-test", overrides=[ENGINE, *changes]))
    assert re.search(message, found)
    assert not list_unsupported_settings(load_run_config("atlas-test", overrides=changes)), "the other engine is not concerned"


def test_the_service_does_not_start_with_blends(tmp_path: Path) -> None:
    from compass_ray.serving.app import build_app

    config = load_run_config("atlas-test", overrides=[ENGINE, "identifier.blend_adapters=true"])
    with pytest.raises(ConfigError, match=r"blend_adapters=false"):
        build_app(str(tmp_path / "run"), config)
