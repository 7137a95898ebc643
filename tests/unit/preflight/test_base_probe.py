"""The probe of the base model: each family passes, and each fault is named before any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compass_ray.artifacts import RunDir
from compass_ray.config import AdapterConfig, RunConfig, TrainConfig, load_run_config, with_overrides
from compass_ray.engine import batch_attention
from compass_ray.preflight import CheckResult, ClusterEnvironment, base_probe
from compass_ray.preflight.base_probe import ProbeFinding, check_base, probe_base
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.reduced_model import WINDOW, load_config, reduce_config
from tests.unit.tiny_models import LAYERS, TEMPLATE, make_tokenizer

FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
MakeFolder = Callable[..., str]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A base model's configuration and tokenizer, without weights."""

    def make(config_class: str, template: str | None = TEMPLATE, **settings: Any) -> str:
        import transformers

        tokenizer = make_tokenizer(template)
        config = getattr(transformers, config_class)(**SIZES | {"vocab_size": len(tokenizer), "num_hidden_layers": 6} | settings)
        folder = tmp_path / f"base{len(list(tmp_path.iterdir()))}"
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


def probe(folder: str, *targets: str, **settings: Any) -> list[ProbeFinding]:
    adapter = AdapterConfig(r=2, alpha=4, target_modules=targets or LAYERS)
    return list(probe_base(TrainConfig(base_model=folder, adapter=adapter, **settings), "letter"))


def check(folder: str, run: RunDir, machine: ClusterEnvironment, **settings: Any) -> list[CheckResult]:
    values = [f"train.base_model={folder}", *(f"train.{key}={value}" for key, value in settings.items())]
    config: RunConfig = with_overrides(load_run_config("atlas"), values)
    return check_base(CheckContext(config, run, machine))


@pytest.mark.parametrize(
    ("config_class", "targets", "settings"),
    [
        ("Gemma3TextConfig", LAYERS, {"head_dim": 8, "sliding_window": 4096}),
        ("MistralConfig", LAYERS, {"sliding_window": 4096}),
        ("Phi3Config", FUSED, {"pad_token_id": 0, "sliding_window": 2047}),
        ("SmolLM3Config", LAYERS, {"pad_token_id": 0}),
        ("MixtralConfig", ("q_proj", "o_proj"), {"num_local_experts": 4, "sliding_window": 4096}),
    ],
)
def test_supported_families_have_no_finding(
    make_folder: MakeFolder, config_class: str, targets: tuple[str, ...], settings: dict[str, Any]
) -> None:
    before = torch.random.get_rng_state()
    assert probe(make_folder(config_class, **settings), *targets) == []
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_probe_trains_one_step_of_a_training_by_tokens(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list[int]()
    run = base_probe.AdapterTrainer.run

    def count(trainer: Any, **options: Any) -> Any:
        result = run(trainer, **options)
        steps.append(sum(record.steps for record in result.history))
        return result

    monkeypatch.setattr(base_probe.AdapterTrainer, "run", count)
    assert probe(make_folder("LlamaConfig", pad_token_id=0), tokens=2_000_000, step_tokens=8) == []
    assert steps == [1]


def test_the_copy_has_one_layer_of_each_kind(make_folder: MakeFolder) -> None:
    folder = make_folder("Gemma3TextConfig", head_dim=8, sliding_window=4096, intermediate_size=9216, vocab_size=262_144)
    reduced = reduce_config(load_config(TrainConfig(base_model=folder)))
    assert reduced.layer_types == ["sliding_attention", "full_attention"]
    assert (reduced.num_hidden_layers, reduced.sliding_window, reduced.hidden_size) == (2, WINDOW, 32)
    assert max(reduced.intermediate_size, reduced.vocab_size) < 4096


def test_every_target_that_matches_nothing_is_named(make_folder: MakeFolder) -> None:
    [finding] = probe(make_folder("Phi3Config", pad_token_id=0), *LAYERS)
    assert (finding.part, finding.blocking) == ("adapter", True)
    assert finding.problem == "the base model has no layer named gate_proj, k_proj, q_proj, up_proj, v_proj"
    assert "qkv_proj" in finding.remedy


def test_the_output_layer_is_no_target(make_folder: MakeFolder) -> None:
    found = probe(make_folder("LlamaConfig"), "q_proj", "lm_head")
    assert [each.part for each in found if "lm_head is the output layer" in each.problem] == ["adapter", "engine"]
    assert all(each.blocking for each in found)


@pytest.mark.parametrize(
    ("config_class", "target", "settings", "named"),
    [
        ("Gemma2Config", "q_proj", {"head_dim": 8}, "Gemma2Attention needs softcap"),
        (
            "GptOssConfig",
            "q_proj",
            {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
            "GptOssAttention needs s_aux",
        ),
        ("MambaConfig", "in_proj", {}, "MambaForCausalLM caches"),
        ("BloomConfig", "query_key_value", {}, "BloomForCausalLM does not run with batched attention"),
    ],
)
def test_unsupported_attention_is_named_with_its_class(
    make_folder: MakeFolder, config_class: str, target: str, settings: dict[str, Any], named: str
) -> None:
    targets = {"MambaConfig": ("in_proj",), "GptOssConfig": ("q_proj",), "BloomConfig": ("query_key_value",)}.get(
        config_class, LAYERS
    )
    found = probe(make_folder(config_class, **settings), *targets)
    assert [(each.part, each.blocking) for each in found if named in each.problem] == [("engine", True)], found


def test_a_window_that_the_engine_ignores_is_found(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe goes beyond the window of any model, since its copy has a small one."""
    full = batch_attention._window_indices

    def without_window(chunk: Any, window: int, device: torch.device) -> Any:
        earlier, newest, mask = full(chunk, window, device)
        return earlier, newest, mask.new_ones(mask.shape).tril(len(earlier))

    monkeypatch.setattr(batch_attention, "_window_indices", without_window)
    [finding] = probe(make_folder("MistralConfig", sliding_window=4096))
    assert finding.part == "engine"
    assert "differs from the model" in finding.problem


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "chat template"),
        ("", "chat template"),
        ("<|im_start|>assistant\n", "does not show the content"),
        ("{{ raise_exception('no') }}", "no"),
    ],
)
def test_a_template_that_renders_nothing_is_named(make_folder: MakeFolder, template: str | None, problem: str) -> None:
    found = probe(make_folder("LlamaConfig", template))
    assert [each.part for each in found] == ["template"]
    assert problem in found[0].problem


@pytest.mark.parametrize("missing", [200, 1])
def test_a_tokenizer_with_more_ids_than_the_model_is_named(missing: int, make_folder: MakeFolder) -> None:
    [finding] = probe(make_folder("LlamaConfig", vocab_size=len(make_tokenizer()) - missing))
    assert (finding.part, finding.blocking) == ("tokenizer", True)
    assert f"the model has {len(make_tokenizer()) - missing} tokens" in finding.problem


def test_an_added_token_that_no_row_uses_is_no_fault(make_folder: MakeFolder) -> None:
    tokenizer = make_tokenizer()
    folder = make_folder("LlamaConfig")
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(folder)
    assert not probe(folder)


def test_a_model_of_another_kind_is_named(make_folder: MakeFolder) -> None:
    [finding] = probe(make_folder("T5Config"))
    assert (finding.part, finding.blocking) == ("model", True)
    assert "T5Config" in finding.problem


def test_a_quantized_base_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder("LlamaConfig", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "the base model is quantized" in [each.problem for each in probe(folder)]


def test_experts_are_no_targets(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray.preflight import reduced_model

    class Expert(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.ModuleList([torch.nn.Linear(4, 4)])
            self.experts[0].up = torch.nn.Linear(4, 4)

        def get_output_embeddings(self) -> None:
            return None

    monkeypatch.setattr(reduced_model, "make_structure", lambda *_: Expert())
    found = probe(make_folder("LlamaConfig"), "up")
    assert "experts.0.up is an expert's" in found[0].problem


def test_rows_of_zeros_are_named_as_information(make_folder: MakeFolder, run: RunDir, machine: ClusterEnvironment) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_folder("LlamaConfig", num_hidden_layers=1)
    model = AutoModelForCausalLM.from_config(load_config(TrainConfig(base_model=folder)))
    with torch.no_grad():
        model.get_submodule("model.layers.0.mlp.up_proj").weight[:5] = 0
        model.get_submodule("model.layers.0.self_attn.q_proj").weight[2] = 0
    model.save_pretrained(folder)
    [result] = check(folder, run, machine)
    assert not result.blocking
    assert "6 rows of adapted layers are zero" in result.found
    [result] = check(folder, run, machine, **{"adapter.kind": "lora"})
    assert "zero" not in result.found


def test_a_hub_id_that_is_not_cached_was_not_probed(run: RunDir, machine: ClusterEnvironment) -> None:
    [result] = check("example/not-cached", run, machine)
    assert not result.blocking
    assert result.found.startswith("example/not-cached was not probed: its configuration cannot be loaded")
    assert "hub" in result.remedy


def test_a_model_without_a_tokenizer_blocks(make_folder: MakeFolder, run: RunDir, machine: ClusterEnvironment) -> None:
    folder = make_folder("LlamaConfig")
    for file in Path(folder).glob("*token*"):
        file.unlink()
    [result] = check(folder, run, machine)
    assert result.blocking
    assert "its tokenizer cannot be loaded" in result.found


def test_the_quick_probe_skips_the_packaged_model_and_runs_once(
    make_folder: MakeFolder, run: RunDir, machine: ClusterEnvironment
) -> None:
    context = CheckContext(load_run_config("atlas"), run, machine, thorough=False)
    assert check_base(context) == []
    assert check_base(replace(context, stages=frozenset({"report"}))) == []
    other = with_overrides(context.config, ["train.adapter.target_modules=[q_proj,missing]"])
    [result] = check_base(replace(context, config=other))
    assert "named missing" in result.found
    assert result.blocking
