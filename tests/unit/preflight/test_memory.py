"""Memory: parameters as PEFT and transformers count them, activations as PyTorch saves them, and the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch

from compass_ray.adapters import dora
from compass_ray.artifacts import RunDir
from compass_ray.cluster_capacity import ClusterCapacity, Node, NodeType
from compass_ray.config import RunConfig, ServeConfig, TrainConfig, load_run_config
from compass_ray.engine.kv_cache import find_kv_layer_shapes, slot_bytes
from compass_ray.engine.sampler import SamplingParams, make_generator, sample
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError
from compass_ray.models.token_memory import LayerShape
from compass_ray.preflight import CheckResult, ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.memory import check_memory
from compass_ray.preflight.model_size import ModelSize, model_size

_WIDE = {"hidden_size": 256, "intermediate_size": 896, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 500}


def _shape(layers: int) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(num_hidden_layers=layers, **_WIDE)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A base model's configuration without its weights."""
    _shape(3).save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_parameters_are_counted_without_weights(folder: str, kind: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = TrainConfig(base_model=folder, adapter={"kind": kind})
    found = model_size(config)

    model = AutoModelForCausalLM.from_config(_shape(3))
    assert found.parameters == sum(p.numel() for p in model.parameters())
    modules = list(config.adapter.target_modules)
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules=modules, use_dora=kind == "dora"))
    assert found.adapter == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_close_to_what_pytorch_saves(folder: str, dtype: Any) -> None:
    config = TrainConfig(base_model=folder, dtype=dtype)
    size = model_size(config)
    saved = (_saved_bytes(4, dtype) - _saved_bytes(2, dtype)) / 2
    estimated = size.shape.trained_token(checkpointing=False)
    assert 0.9 < estimated / size.shape.layers / saved < 1.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_of_heads_wider_than_the_model_are_not_underestimated(dtype: torch.dtype) -> None:
    from transformers import Qwen3Config

    def make(layers: int) -> Any:
        return Qwen3Config(num_hidden_layers=layers, **_WIDE, head_dim=64)

    saved = (_saved_bytes(4, dtype, make) - _saved_bytes(2, dtype, make)) / 2
    estimated = LayerShape.of(make(1), dtype.itemsize).trained_token(checkpointing=False)
    assert 0.97 < estimated / saved < 1.4


def _saved_bytes(layers: int, dtype: str | torch.dtype, make: Callable[[int], Any] = _shape) -> float:
    """Bytes per token that PyTorch saves for the backward pass through ``layers`` blocks."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    model = AutoModelForCausalLM.from_config(make(layers), dtype=dtype).requires_grad_(False).eval()
    dora.attach(model, TrainConfig().adapter, seed=0)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(0, 500, (4, 256), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=ids)
    return sum(size for size, _ in saved.values()) / ids.numel()


def test_checkpointing_saves_memory(folder: str) -> None:
    shape = model_size(TrainConfig(base_model=folder)).shape
    assert shape.trained_token(checkpointing=True) < shape.trained_token(checkpointing=False)


def test_the_cache_of_a_token_is_that_of_transformers(folder: str) -> None:
    from transformers import AutoModelForCausalLM

    cache = AutoModelForCausalLM.from_config(_shape(3))(torch.tensor([[1, 2]])).past_key_values
    expected = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / 2
    assert model_size(TrainConfig(base_model=folder)).shape.cached_token() == expected


@pytest.mark.parametrize("tokens", [3, 200])
def test_the_slot_of_a_request_is_that_of_the_engine(tokens: int) -> None:
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6, "vocab_size": 64, "head_dim": 8}
    config = Gemma3TextConfig(num_attention_heads=2, num_key_value_heads=1, sliding_window=8, **sizes)
    base = BaseModel(AutoModelForCausalLM.from_config(config).eval(), None, torch.device("cpu"))
    assert LayerShape.of(config, 4).slot(tokens) == slot_bytes(find_kv_layer_shapes(base), tokens, torch.float32)


@pytest.mark.parametrize(
    ("family", "settings", "kv_width"),
    [
        ("gemma3n_text", {"intermediate_size": [64, 32], "num_hidden_layers": 2, "head_dim": 8, "num_key_value_heads": 3}, 48),
        ("gemma4_text", {"num_hidden_layers": 2, "head_dim": 8, "global_head_dim": 16, "num_key_value_heads": 3}, 48),
        ("mamba", {"num_hidden_layers": 2}, 0),
    ],
)
def test_sizes_by_layer_and_layers_without_attention(family: str, settings: dict[str, Any], kv_width: int) -> None:
    from transformers import AutoConfig

    shape = LayerShape.of(AutoConfig.for_model(family, **settings), 2)
    assert shape.kv_width == kv_width
    assert shape.trained_token(checkpointing=False) > 0
    assert shape.slot(100) <= 100 * 2 * 2 * kv_width


def test_the_size_of_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot determine the size"):
        model_size(TrainConfig(base_model=str(tmp_path)))


def _result(
    config: RunConfig, run: RunDir, environment: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch, parameters: int
) -> CheckResult:
    return _results(config, run, environment, monkeypatch, parameters)[0]


def _results(
    config: RunConfig, run: RunDir, environment: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch, parameters: int
) -> list[CheckResult]:
    itemsize = {"float32": 4, "bfloat16": 2}[config.train.dtype]
    size = ModelSize(parameters, parameters // 200, LayerShape(4096, 14336, 32, 128_000, 2048, itemsize))
    monkeypatch.setattr("compass_ray.preflight.memory.model_size", lambda train: size)
    return check_memory(CheckContext(config, run, environment))


_GPUS = ("resources.gpus_per_worker=1", "resources.cpus_per_worker=1", "train.dtype=bfloat16")


def _cluster(*names: str) -> ClusterEnvironment:
    types = tuple(NodeType(name, {"CPU": 8, "GPU": 1, f"accelerator_type:{name}": 1}, 4) for name in names)
    return ClusterEnvironment(ClusterCapacity((Node({"CPU": 2}),), types), (), is_cluster=True)


def test_a_base_that_fits_no_gpu_of_the_cluster_blocks_the_run(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_run_config("atlas-test", overrides=_GPUS)
    found = _result(config, run, _cluster("L4"), monkeypatch, 14_000_000_000)
    assert found.blocking
    assert "weights 28.00 GB" in found.found
    assert "22.6 GB of L4" in found.found
    assert "smaller base model" in found.remedy


def test_a_base_that_fits_only_some_gpus_is_reported_and_does_not_block(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _result(load_run_config("atlas-test", overrides=_GPUS), run, _cluster("L4", "H100"), monkeypatch, 14_000_000_000)
    assert not found.blocking
    assert found.remedy


def test_memory_left_for_rows_is_reported_in_tokens(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = _result(load_run_config("atlas-test", overrides=_GPUS), run, _cluster("H100"), monkeypatch, 8_000_000_000)
    assert "tokens at once" in roomy.found
    assert not roomy.remedy
    config = load_run_config("atlas-test", overrides=(*_GPUS, "train.max_tokens=8192"))
    tight = _result(config, run, _cluster("L40S"), monkeypatch, 8_000_000_000)
    assert not tight.blocking
    assert "a row may have 8,192" in tight.found
    assert "gradient_checkpointing=true" in tight.remedy
    saving = load_run_config("atlas-test", overrides=(*_GPUS, "train.max_tokens=8192", "train.gradient_checkpointing=true"))
    assert not _result(saving, run, _cluster("L40S"), monkeypatch, 8_000_000_000).remedy


def test_a_share_of_a_gpu_is_a_share_of_its_memory(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_run_config("atlas-test", overrides=(*_GPUS, "resources.gpus_per_worker=0.25"))
    assert _result(config, run, _cluster("L40S"), monkeypatch, 8_000_000_000).blocking


def test_a_gpu_of_unknown_name_does_not_block(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _result(load_run_config("atlas-test", overrides=_GPUS), run, _cluster("Abacus"), monkeypatch, 8_000_000_000)
    assert not found.blocking
    assert "unknown" in found.found


def test_workers_of_one_machine_share_its_memory(
    run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compass_ray.preflight.memory.machine_memory", lambda: 64e9)
    config = load_run_config("atlas-test", overrides=("resources.train_workers=4", "resources.cpus_per_worker=1"))
    found = _result(config, run, machine, monkeypatch, 100_000_000)
    assert "16.0 GB of memory (64.0 GB shared by 4)" in found.found


def _on_machine(
    settings: tuple[str, ...], gigabytes: float, run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> list[CheckResult]:
    monkeypatch.setattr("compass_ray.preflight.memory.machine_memory", lambda: gigabytes * 1e9)
    config = load_run_config("atlas-test", overrides=("train.dtype=bfloat16", "resources.cpus_per_worker=1", *settings))
    return _results(config, run, machine, monkeypatch, 1_000_000_000)


def test_sizes_that_are_not_set_are_derived_from_memory(
    run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [_on_machine((), gigabytes, run, machine, monkeypatch) for gigabytes in (16, 1024)]
    training, scoring = ([_tokens(each[index].found) for each in found] for index in (0, 1))
    assert 0 < training[0] < training[1] == 8_192
    assert 0 < scoring[0] <= scoring[1] == 16_384
    assert training[0] < scoring[0]


def _tokens(text: str) -> int:
    return int(text.partition(" tokens at once")[0].rpartition(" ")[2].replace(",", ""))


@pytest.mark.parametrize(("index", "setting"), [(0, "train.micro_batch_tokens"), (1, "evaluate.batch_tokens")])
def test_a_set_size_that_does_not_fit_is_reported(
    index: int, setting: str, run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _on_machine((f"{setting}=300000",), 16, run, machine, monkeypatch)[index]
    assert f"{setting} is 300,000, but about" in found.found
    assert f"lower {setting}" in found.remedy
    assert not found.blocking
    fitting = _on_machine((f"{setting}=64",), 16, run, machine, monkeypatch)[index]
    assert "64 tokens at once" in fitting.found
    assert not fitting.remedy
    above_derived = _on_machine((f"{setting}=20000",), 4096, run, machine, monkeypatch)[index]
    assert not above_derived.remedy


def test_a_cache_that_does_not_fit_is_reported_with_the_largest_that_does(
    run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = "serve.max_prompt_tokens=4096"
    found = _on_machine(("serve.kv_cache_gib=4", prompts), 8, run, machine, monkeypatch)[2]
    assert "a replica has about 4.8 GB" in found.found
    setting = found.remedy.removeprefix("set ")
    assert setting.startswith("serve.kv_cache_gib=")
    assert not _on_machine((setting, prompts), 8, run, machine, monkeypatch)[2].remedy
    assert not _on_machine((prompts,), 8, run, machine, monkeypatch)[2].remedy  # derived


def test_a_replica_on_a_gpu_is_compared_with_its_memory(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*settings: str) -> CheckResult:
        config = load_run_config("atlas-test", overrides=(*_GPUS, "resources.replica_gpus=1", *settings))
        found = {each.check: each for each in _results(config, run, _cluster("L4", "H100"), monkeypatch, 8_000_000_000)}
        return found["memory of serving"]

    large = check("serve.kv_cache_gib=16", "serve.max_prompt_tokens=8192")
    assert "a replica has about 22.6 GB of L4" in large.found
    assert large.remedy.startswith("set serve.kv_cache_gib=")
    assert not check(large.remedy.removeprefix("set "), "serve.max_prompt_tokens=8192").remedy
    assert "22.6 GB" not in check().found


def test_a_replica_without_a_gpu_beside_workers_with_one_is_estimated(
    run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compass_ray.preflight.memory.list_gpu_memory", lambda *_, **__: {"L4": 24e9})
    found = _on_machine(("resources.gpus_per_worker=1", "serve.kv_cache_gib=4"), 8, run, machine, monkeypatch)
    [serving] = (each for each in found if each.check == "memory of serving")
    assert "a replica has about 4.8 GB of memory" in serving.found


def test_the_logits_of_a_step_are_what_the_sampler_holds(folder: str) -> None:
    from torch.profiler import ProfilerActivity, profile

    size, serve = model_size(TrainConfig(base_model=folder)), ServeConfig(max_num_seqs=6)
    size = replace(size, shape=replace(size.shape, vocabulary=200_000))
    logits = torch.randn(6, 200_000)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        sample(logits, [SamplingParams(make_generator(0), temperature=1.0)] * 6)
    events = [each for each in measured.profiler.kineto_results.events() if each.name() == "[memory]"]
    changes = [each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())]
    peak = logits.nbytes + max(accumulate(changes))
    assert 0.95 < size.step_logits(serve) / peak < 1.1


def test_layers_that_the_base_does_not_have_block_the_run(folder: str, run: RunDir, machine: ClusterEnvironment) -> None:
    config = load_run_config(
        "atlas-test", overrides=(f"train.base_model={folder}", "train.adapter.target_modules=[query_key_value]")
    )
    [found] = check_memory(CheckContext(config, run, machine))
    assert found.blocking
    assert "no layer named query_key_value" in found.found
