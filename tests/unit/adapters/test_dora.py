"""The adapted layer against PEFT, and the factored norm against the dense one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from compass_ray.adapters.dora import attach, attach_for_inference, row_norms
from compass_ray.adapters.peft_io import CONFIG_NAME, WEIGHTS_NAME, read_adapter
from compass_ray.config import AdapterConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError
from tests.unit.random_adapters import merged, random_adapter
from tests.unit.tiny_models import LAYERS

IDS = torch.tensor([[5, 9, 31, 44, 7, 120, 3]])


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 5), st.floats(0.1, 8.0), st.integers(0, 10_000))
def test_factored_norm_equals_dense_norm(out: int, inner: int, r: int, scaling: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, a, b = (torch.randn(shape, generator=generator) for shape in ((out, inner), (r, inner), (out, r)))
    dense = torch.linalg.norm(weight.double() + scaling * (b.double() @ a.double()), dim=1)
    torch.testing.assert_close(row_norms(weight, a, b, scaling).double(), dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_new_adapter_gives_the_output_of_the_base(make_base: Callable[..., BaseModel], architecture: str, kind: str) -> None:
    base = make_base(architecture)
    before = base.model(IDS).logits
    adapter = attach(base.model, AdapterConfig(kind=kind, r=4, alpha=8, target_modules=LAYERS), seed=1)
    torch.testing.assert_close(base.model(IDS).logits, before, rtol=1e-4, atol=1e-4)
    adapter.detach()
    assert torch.equal(base.model(IDS).logits, before)


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_trained_adapter_equals_peft(make_base: Callable[..., BaseModel], architecture: str, kind: str, tmp_path: Path) -> None:
    base = make_base(architecture)
    folder = random_adapter(base, tmp_path, AdapterConfig(kind=kind, r=3, alpha=7, target_modules=LAYERS), seed=2)
    stored = read_adapter(folder)
    with attach_for_inference(base.model, stored):
        ours = base.model(IDS).logits
    torch.testing.assert_close(ours, merged(base, folder)(IDS).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_gradients_equal_those_of_peft(base: BaseModel, kind: str, tmp_path: Path) -> None:
    config = AdapterConfig(kind=kind, r=3, alpha=6, target_modules=("q_proj", "down_proj"))
    folder = random_adapter(base, tmp_path, config, seed=3)
    theirs = PeftModel.from_pretrained(copy.deepcopy(base.model), str(folder), is_trainable=True)
    theirs(IDS).logits.square().mean().backward()
    expected = {
        name.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector"): p.grad
        for name, p in theirs.named_parameters()
        if p.requires_grad
    }
    adapter = attach(base.model, config, seed=0)
    adapter.load(read_adapter(folder).tensors)
    base.model(IDS).logits.square().mean().backward()
    assert adapter.parameters().keys() == expected.keys()
    for name, parameter in adapter.parameters().items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5)
    adapter.detach()


def test_parameters_of_the_base_take_no_gradient(base: BaseModel) -> None:
    adapter = attach(base.model, AdapterConfig(r=2, alpha=4), seed=0)
    base.model(IDS).logits.sum().backward()
    trained = {id(p) for p in adapter.parameters().values()}
    assert all(p.grad is None for p in base.model.parameters() if id(p) not in trained)
    adapter.detach()


def test_reads_what_peft_writes(base: BaseModel, tmp_path: Path) -> None:
    config = LoraConfig(r=2, lora_alpha=5, use_dora=True, use_rslora=True, target_modules=["v_proj"])
    theirs = get_peft_model(copy.deepcopy(base.model), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    theirs.save_pretrained(str(tmp_path))
    stored = read_adapter(tmp_path)
    assert stored.use_dora
    assert stored.r == 2
    assert stored.scaling == pytest.approx(5 / 2**0.5)
    with attach_for_inference(base.model, stored):
        torch.testing.assert_close(base.model(IDS).logits, theirs.eval()(IDS).logits, rtol=1e-4, atol=1e-4)


def test_unknown_target_error_lists_the_layers(base: BaseModel) -> None:
    with pytest.raises(ModelError, match=r"no layer named c_attn.*q_proj"):
        attach(base.model, AdapterConfig(target_modules=("c_attn",)), seed=0)


def test_layer_of_another_kind_is_rejected() -> None:
    model = nn.ModuleDict({"q_proj": nn.Conv1d(2, 2, 1)})
    with pytest.raises(ModelError, match="Conv1d"):
        attach(model, AdapterConfig(target_modules=("q_proj",)), seed=0)


def test_adapter_of_another_base_leaves_the_base_as_it_was(make_base: Callable[..., BaseModel], tmp_path: Path) -> None:
    base, larger = make_base(), make_base(hidden=64)
    stored = read_adapter(random_adapter(larger, tmp_path, AdapterConfig(r=2, alpha=4), seed=0))
    before = base.model(IDS).logits
    with pytest.raises(ModelError, match="another base model"), attach_for_inference(base.model, stored):
        pass
    assert torch.equal(base.model(IDS).logits, before)


def _truncate(folder: Path) -> None:
    (folder / WEIGHTS_NAME).write_bytes((folder / WEIGHTS_NAME).read_bytes()[:100])


def _rewrite(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / CONFIG_NAME).read_text()
        assert old in text
        (folder / CONFIG_NAME).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "damaged"),
        (lambda folder: (folder / CONFIG_NAME).write_text("{"), "damaged"),
        (lambda folder: (folder / CONFIG_NAME).write_text("[]"), "damaged"),
        (lambda folder: (folder / CONFIG_NAME).unlink(), "lacks adapter_config.json"),
        (lambda folder: (folder / WEIGHTS_NAME).unlink(), "lacks adapter_model.safetensors"),
        (_rewrite('"LORA"', '"IA3"'), "IA3"),
        (_rewrite('"rank_pattern": {}', '"rank_pattern": {"q_proj": 9}'), "rank_pattern"),
        (_rewrite('"bias": "none"', '"bias": "all"'), "bias"),
    ],
)
def test_damaged_directory_is_rejected(base: BaseModel, tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = random_adapter(base, tmp_path, AdapterConfig(r=2, alpha=4), seed=0)
    damage(folder)
    with pytest.raises(ModelError, match=message):
        read_adapter(folder)
