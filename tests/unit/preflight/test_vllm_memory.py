"""Memory of vLLM's replicas for the shape of Llama 3.1 8B. The numbers are computed by hand from its public configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.cluster_capacity import ClusterCapacity, Node, NodeType
from compass_ray.config import TrainConfig, load_run_config
from compass_ray.engine.vllm_backend.engine_arguments import build_arguments
from compass_ray.preflight import CheckResult, ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.model_size import LayerWidths, model_size
from compass_ray.preflight.vllm_memory import check_vllm_memory, estimate_rank

PARAMETERS = 8_030_261_248
WEIGHTS = 2 * PARAMETERS
"""bfloat16."""
VALUES, OUTPUTS = 32 * 81_920 + 2 * (4_096 + 128_256), 32 * 43_008
"""In each of 32 blocks, the inputs plus the outputs of seven linear layers; two tables of the vocabulary."""
SLOTS = 4 * 16 * VALUES * 2 + 5 * OUTPUTS * 4
"""Four slots of rank 16 in bfloat16, and five rows of tables in float32."""
STEP = (2_048 + 64) * 196_608 + 2 * 4 * 64 * 128_256
"""Activations of 2,112 tokens, and the logits of 64."""
REQUEST = 32 * 2 * 8 * 128 * 2 * 4_096
"""Keys and values of 4,096 tokens: 0.5 GiB."""
GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The configuration without the weights."""
    from transformers import LlamaConfig

    LlamaConfig(
        vocab_size=128_256,
        hidden_size=4_096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        tie_word_embeddings=False,
    ).save_pretrained(tmp_path / "llama")
    return str(tmp_path / "llama")


def _config(folder: str, *changes: str) -> Any:
    settings = (f"train.base_model={folder}", "train.dtype=bfloat16", "train.adapter.r=16", "serve.engine=vllm")
    sizes = ("serve.max_num_seqs=64", "serve.prefill_chunk_tokens=2048", "serve.max_prompt_tokens=3072", "serve.max_tokens=1024")
    return load_run_config("atlas-test", overrides=(*settings, *sizes, "serve.vllm.arguments={max_loras: 4}", *changes))


def _gpus(name: str, count: int) -> ClusterEnvironment:
    kind = NodeType(name, {"CPU": 8, "GPU": count, f"accelerator_type:{name}": 1}, 4)
    return ClusterEnvironment(ClusterCapacity((Node({"CPU": 2}),), (kind,)), (), is_cluster=True)


def _check(folder: str, run: RunDir, environment: ClusterEnvironment, *changes: str) -> CheckResult:
    (result,) = check_vllm_memory(CheckContext(_config(folder, *changes), run, environment))
    assert not result.blocking
    return result


def test_the_shape_is_that_of_the_public_model(folder: str) -> None:
    size = model_size(TrainConfig(base_model=folder, dtype="bfloat16"))
    assert (size.parameters, size.weights) == (PARAMETERS, WEIGHTS)
    assert size.widths == LayerWidths(VALUES, OUTPUTS) == LayerWidths(2_886_144, 1_376_256)


def test_the_memory_of_one_of_two_ranks(folder: str) -> None:
    config = _config(folder, "serve.vllm.tensor_parallel=2", "resources.replica_gpus=2")
    rank = estimate_rank(config, model_size(config.train), build_arguments(config, folder))
    assert (rank.weights, rank.slots, rank.step) == (PARAMETERS, SLOTS, STEP)
    assert (SLOTS, STEP, rank.total) == (396_951_552, 480_903_168, 8_908_115_968)


def test_two_gpus_have_room_for_47_requests(folder: str, run: RunDir) -> None:
    found = _check(folder, run, _gpus("L4", 2), "serve.vllm.tensor_parallel=2", "resources.replica_gpus=2")
    assert int((0.9 * 24e9 - 8_908_115_968) / (REQUEST / 2)) == 47
    assert "for each of 2 ranks: weights 8.03 GB, 4 adapter slots 0.40 GB, a step 0.48 GB" in found.found
    assert "21.6 GB of L4 can be used, key-value cache 12.69 GB for 47 requests of 4,096 tokens" in found.found
    assert not found.remedy


def test_a_share_that_vllm_may_use_is_the_limit(folder: str, run: RunDir) -> None:
    share = "serve.vllm.arguments={max_loras: 4, gpu_memory_utilization: 0.5}"
    found = _check(folder, run, _gpus("A100-80G", 1), "resources.replica_gpus=1", share)
    assert "40.0 GB of A100-80G can be used" in found.found
    assert int((40e9 - WEIGHTS - SLOTS - STEP) / REQUEST) == 42
    assert "for 42 requests" in found.found


def test_weights_without_room_for_a_request(folder: str, run: RunDir) -> None:
    found = _check(folder, run, _gpus("T4", 1), "resources.replica_gpus=1")
    assert "weights 16.06 GB" in found.found
    assert "14.4 GB of T4 can be used, which leaves no room" in found.found
    assert "serve.vllm.tensor_parallel" in found.remedy


def test_a_cache_that_does_not_fit_is_reported_with_the_largest_that_does(folder: str, run: RunDir) -> None:
    changes = ("serve.vllm.tensor_parallel=2", "resources.replica_gpus=2")
    found = _check(folder, run, _gpus("L4", 2), *changes, "serve.kv_cache_gib=16")
    assert int(10 * (0.94 * 24e9 - 8_908_115_968) / GIB) == 127
    assert found.remedy == "set serve.kv_cache_gib to at most 12.7"
    assert not _check(folder, run, _gpus("L4", 2), *changes, "serve.kv_cache_gib=12.7").remedy
    small = _check(folder, run, _gpus("L4", 2), *changes, "serve.kv_cache_gib=0.2")
    assert small.remedy == "raise serve.kv_cache_gib"


def test_ranks_on_a_cpu_share_the_memory_of_the_machine(
    folder: str, run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compass_ray.models.token_memory.machine_memory", lambda: 64e9)
    found = _check(folder, run, machine, "serve.vllm.tensor_parallel=2", "resources.replicas=1")
    assert "19.2 GB of memory can be used, key-value cache 2.15 GB for 8 requests" in found.found  # 60% of 32 GB; 4 GiB of both


def test_what_is_not_known_is_said(folder: str, run: RunDir) -> None:
    assert "is unknown" in _check(folder, run, _gpus("Abacus", 1), "resources.replica_gpus=1").found
    quantised = "serve.vllm.arguments={quantization: fp8}"
    assert "not estimated" in _check(folder, run, _gpus("L4", 1), "resources.replica_gpus=1", quantised).found


def test_only_vllm_is_estimated(folder: str, run: RunDir, machine: ClusterEnvironment) -> None:
    assert not check_vllm_memory(CheckContext(_config(folder, "serve.engine=compass"), run, machine))
    assert not check_vllm_memory(CheckContext(_config(folder, "train.base_model=/none"), run, machine))
