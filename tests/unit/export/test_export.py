"""Exports loaded by other engines: their outputs, their model cards, and the removal of a wrong export."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from compass_ray import export, registry
from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import StoredAdapter, read_adapter
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import AdapterConfig, ConfigError, RunConfig, load_run_config
from compass_ray.export import parity, writers
from compass_ray.export.suppress_logs import suppress_library_logs
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import model_identity, resolve_model
from tests.unit.command_line import Command
from tests.unit.random_adapters import random_adapter

PROMPT = "Mji mkuu wa Kenya ni upi? 7 + 5 = ?"
SOME = ("q_proj", "v_proj", "down_proj")
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


def _run(folder: Path, config: RunConfig, versions: tuple[str, ...], adapter: AdapterConfig) -> RunDir:
    run, base = RunDir(str(folder)), load_base(config.train)
    run.write_config(config)
    for seed, version in enumerate(versions):
        identity = {"base_model": model_identity(config.train.base_model), "v": version}
        writer = run.adapter("sw", version).begin(Identity("train", identity, {"selections/compass/sw": "f00d"}))
        writer.write_folder(lambda into, seed=seed: random_adapter(base, into, adapter, seed=seed))
        writer.publish({"rows": 40})
    registry.promote(run, "sw", versions[0])
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Three random adapters on the small base model: the first is live, the others are canary and shadow."""
    config = load_run_config("atlas-test")
    made = _run(tmp_path_factory.mktemp("run"), config, ("v0001", "v0002", "v0003"), config.train.adapter)
    registry.set_canary(made, "sw", "v0002", 0.1)
    registry.set_shadow(made, "sw", "v0003")
    return made


def _ids(base: BaseModel) -> torch.Tensor:
    return torch.tensor([base.tokenizer(PROMPT)["input_ids"]])


def _served(run: RunDir, version: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids of a prompt, and logits of the base model without and with the served adapter."""
    base = load_base(run.read_config().train)
    ids = _ids(base)
    with torch.inference_mode():
        plain = base.model(input_ids=ids).logits
        with run.adapter("sw", version).local_folder() as folder, attach_for_inference(base.model, read_adapter(folder)):
            return ids, plain, base.model(input_ids=ids).logits


@pytest.mark.parametrize(
    ("requested", "version"), [(None, "v0001"), ("canary", "v0002"), ("shadow", "v0003"), ("v0003", "v0003")]
)
def test_peft_alone_loads_any_version_and_computes_what_is_served(
    run: RunDir, tmp_path: Path, requested: str | None, version: str
) -> None:
    from peft import AutoPeftModelForCausalLM

    written = export.export_adapter(run, "sw", requested, tmp_path / "out", merged=False)
    assert (written.version, written.parity.tolerance) == (version, 1e-4)
    assert written.difference < 1e-4
    ids, plain, expected = _served(run, version)
    with torch.inference_mode():
        found = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out"), dtype=torch.float32)(input_ids=ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert (found - plain).abs().max() > 0.1


def test_transformers_alone_loads_a_merged_model_and_generates_what_is_served(run: RunDir, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    written = export.export_adapter(run, "sw", "v0002", tmp_path / "deep" / "out", merged=True)
    assert written.parity.agreement == 1.0
    assert written.parity.effect > 1.0
    assert written.parity.positions > 200
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "deep" / "out"))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "deep" / "out"))
    ids, _, expected = _served(run, "v0002")
    assert tokenizer(PROMPT)["input_ids"] == ids[0].tolist()
    assert tokenizer.chat_template
    with torch.inference_mode():
        assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-4)
    assert not list((tmp_path / "deep").glob(".*"))


@pytest.mark.parametrize(
    ("family", "targets", "dtype"),
    [
        ("phi3", FUSED, "float32"),
        pytest.param("phi3", FUSED, "bfloat16", marks=pytest.mark.slow),
        pytest.param("llama", SOME, "float32", marks=pytest.mark.slow),
        pytest.param("llama", SOME, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_other_families_in_both_types(tmp_path: Path, family: str, targets: tuple[str, ...], dtype: str) -> None:
    config = _other_base(tmp_path / "base", family, dtype)
    run = _run(tmp_path / "run", config, ("v0001",), AdapterConfig(r=4, alpha=8, target_modules=targets))
    for merged in (False, True):
        found = export.export_adapter(run, "sw", None, tmp_path / f"out-{merged}", merged=merged).parity
        assert found.dtype == dtype
        assert found.difference <= found.tolerance


def _other_base(folder: Path, family: str, dtype: str) -> RunConfig:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("atlas", "base_model"))
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    settings = AutoConfig.for_model(
        family, **shape, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=None, **tokens
    )
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_run_config("atlas-test", overrides=[f"train.base_model={folder}", f"train.dtype={dtype}"])


@pytest.mark.parametrize("merged", [False, True])
def test_other_libraries_print_nothing_during_an_export(
    run: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder, merged: bool
) -> None:
    export.export_adapter(run, "sw", None, tmp_path / "out", merged=merged)
    assert capfd.readouterr() == ("", "")
    assert not [each for each in recwarn if "is_gradient_checkpointing" in str(each.message)]


def test_only_named_messages_are_suppressed_and_only_in_the_context() -> None:
    from transformers.utils import logging as transformers_logging

    logger, handler = logging.getLogger("DeepSpeed"), logging.Handler()
    records: list[str] = []
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    shown = transformers_logging.is_progress_bar_enabled()
    try:
        with suppress_library_logs():
            logger.warning("Setting accelerator to CPU.")
            logger.error("out of memory")
            with pytest.warns(FutureWarning, match="another"):
                warnings.warn("another", FutureWarning, stacklevel=1)
        assert transformers_logging.is_progress_bar_enabled() == shown
        logger.warning("Setting accelerator to CPU.")
    finally:
        logger.removeHandler(handler)
    assert records == ["out of memory", "Setting accelerator to CPU."]


def test_the_model_card_states_the_facts_of_the_export(run: RunDir, tmp_path: Path) -> None:
    written = export.export_adapter(run, "sw", None, tmp_path / "out", merged=False)
    facts = json.loads((tmp_path / "out" / "compass_ray.json").read_text("utf-8"))
    assert (facts["language"], facts["version"], facts["base_model"], facts["metrics"]) == ("sw", "v0001", "atlas", {"rows": 40})
    assert facts["fingerprint"] == run.adapter("sw", "v0001").require().fingerprint
    assert facts["parity"]["difference"] == written.difference
    _, header, body = (tmp_path / "out" / "README.md").read_text("utf-8").split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert (metadata["language"], metadata["library_name"], metadata["pipeline_tag"]) == ("sw", "peft", "text-generation")
    assert "base_model" not in metadata, "a local base model is not on the hub"
    for words in ("# Swahili (sw), v0001", "AutoPeftModelForCausalLM", "## Licence", "base model `"):
        assert words in body or words.replace("base model `", "| base model | `atlas`") in body
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    assert Path(settings["base_model_name_or_path"]).is_dir()


def test_a_model_of_a_hub_is_named_with_its_revision(run: RunDir, tmp_path: Path) -> None:
    config = load_run_config("atlas-test", overrides=["train.base_model=organisation/model", "train.revision=abc"])
    with run.adapter("sw", "v0001").local_folder() as source:
        described = writers._portable_peft_config(config, source)
    assert (described["base_model_name_or_path"], described["revision"]) == ("organisation/model", "abc")
    from compass_ray.export.model_card import write_card

    found = parity.Parity(0.0, 1e-4, 10, 1.0, "float32", 2.0)
    write_card(tmp_path, config, "sw", "v0001", run.adapter("sw", "v0001").require(), found, merged=True)
    metadata = yaml.safe_load((tmp_path / "README.md").read_text("utf-8").split("---\n")[1])
    assert (metadata["base_model"], metadata["base_model_relation"], metadata["library_name"]) == (
        "organisation/model",
        "finetune",
        "transformers",
    )


def _unscaled(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if name.endswith("magnitude_vector"))
    tensors[name] = tensors[name] * 1.001
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def _other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}", "utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_unscaled, r"differ from .* tolerance in float32 is 0\.0001"), (_other_template, "different ids")],
)
def test_an_export_with_different_outputs_is_deleted(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], message: str
) -> None:
    """A magnitude that is 0.1% too large, or a different chat template, set between writing and loading."""
    check = writers._check_tokenizer

    def spoilt(folder: Path, *words: Any) -> None:
        spoil(folder)
        check(folder, *words)

    monkeypatch.setattr(writers, "_check_tokenizer", spoilt)
    with pytest.raises(ModelError, match=rf"{message}.*The export was deleted"):
        export.export_adapter(run, "sw", None, tmp_path / "out", merged=False)
    assert list(tmp_path.iterdir()) == []


def _halved(stored: StoredAdapter) -> StoredAdapter:
    return replace(stored, scaling=stored.scaling / 2)


def test_a_merged_model_with_a_wrong_scaling_is_deleted_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bfloat16 tolerance is wide, but below half the effect of an adapter."""
    config = _other_base(tmp_path / "base", "llama", "bfloat16")
    run = _run(tmp_path / "run", config, ("v0001",), AdapterConfig(r=4, alpha=8, target_modules=("q_proj", "down_proj")))
    ours = parity.attach_for_inference
    monkeypatch.setattr(parity, "attach_for_inference", lambda model, stored: ours(model, _halved(stored)))
    with pytest.raises(ModelError, match="tolerance in bfloat16 is"):
        export.export_adapter(run, "sw", None, tmp_path / "out", merged=True)
    assert not (tmp_path / "out").exists()


def test_nan_logits_fail_the_comparison() -> None:
    broken = torch.tensor([[0.0, float("nan")]])
    expected = parity.ExpectedOutputs([[1]], [torch.zeros(1, 2)], 1.0, "float32", 2)
    with pytest.raises(ModelError, match="differ from the adapter's by up to inf"):
        parity.compare_logits(expected, _Fixed(broken), "cpu")


class _Fixed(torch.nn.Module):
    """A model that always gives the same logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.head, self._logits = torch.nn.Identity(), logits

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, **inputs: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self._logits[None]))


def test_logits_are_compared_in_slices_of_positions(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, positions = load_base(run.read_config().train), list[int]()
    stored = read_adapter(random_adapter(base, tmp_path, run.read_config().train.adapter, seed=1))
    complete = parity.compute_expected(base, stored, "float32")
    monkeypatch.setattr(parity, "slice_positions", lambda vocabulary: 50)
    base.model.get_output_embeddings().register_forward_hook(lambda head, states, logits: positions.append(logits.shape[1]))
    sliced = parity.compute_expected(base, stored, "float32")
    assert max(positions) == 50
    assert sliced.effect == pytest.approx(complete.effect, abs=1e-5)
    for ids, one, other in zip(complete.ids, complete.logits, sliced.logits, strict=True):
        with torch.inference_mode(), attach_for_inference(base.model, stored):
            wanted = base.model(input_ids=torch.tensor([ids])).logits[0]
        for found in (one, other):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    positions.clear()
    with attach_for_inference(base.model, stored):
        found = parity.compare_logits(complete, base.model, base.device)
    assert (found.difference, found.positions) == (pytest.approx(0, abs=1e-5), sum(map(len, complete.ids)))
    assert max(positions) == 50


@pytest.mark.parametrize(
    ("version", "message"),
    [("v0009", "sw has no version 'v0009'. Existing versions: v0001, v0002, v0003"), ("compass_fft", "no adapter to export")],
)
def test_a_version_without_an_adapter_is_refused(run: RunDir, tmp_path: Path, version: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export.export_adapter(run, "sw", version, tmp_path / "out", merged=False)


def test_an_export_of_a_missing_canary_is_refused(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hi has no canary\. Name a version"):
        export.export_adapter(run, "hi", "canary", tmp_path / "out", merged=False)


def test_a_folder_with_files_and_a_damaged_version_are_refused(tmp_path: Path, run: RunDir) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="is not empty; give a new folder"):
            export.export_adapter(run, "sw", None, folder, merged=False)
    made = _run(tmp_path / "run", run.read_config(), ("v0001",), run.read_config().train.adapter)
    made.adapter("sw", "v0001").store_bytes("adapter_model.safetensors", b"other")
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors is damaged"):
        export.export_adapter(made, "sw", None, tmp_path / "out", merged=False)


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path, run: RunDir) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(ConfigError, match=r"cannot create .*file/out .*; give a folder that you can write to"):
        export.export_adapter(run, "sw", "v0001", tmp_path / "file" / "out", merged=False)


def test_the_command_prints_the_comparison(
    compass_ray: Command, run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = partial(compass_ray, f"export {run.uri} sw")
    code, out, _ = call(str(tmp_path / "out"), "--version", "canary", "--json")
    printed = json.loads(out)
    assert (code, printed["version"], printed["parity"]["dtype"]) == (0, "v0002", "float32")
    monkeypatch.setattr(parity, "_EXACT", 0.0)
    code, out, err = call(str(tmp_path / "other"), "--merged")
    assert (code, out) == (1, "")
    assert "The export was deleted" in err
    assert not (tmp_path / "other").exists()
