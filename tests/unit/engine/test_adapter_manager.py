"""Adapters on layers against PEFT's merged models: what the manager keeps and what it rejects."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from compass_ray.adapters.dora import row_norms
from compass_ray.adapters.peft_io import CONFIG_NAME, WEIGHTS_NAME
from compass_ray.config import AdapterConfig
from compass_ray.engine import adapter_manager
from compass_ray.engine.adapter_manager import AdapterManager
from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.multi_adapter_linear import MultiAdapterLinear
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.errors import ModelError
from tests.unit.random_adapters import merged, random_adapter
from tests.unit.tiny_models import LAYERS, make_model, make_tokenizer

FUSED_LAYERS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
ARCHITECTURES = ("llama", "qwen2", "phi3")
TOKENIZER = make_tokenizer()
SLOTS = 4

Kind = tuple[Any, int, int]


def all_layers(architecture: str) -> tuple[str, ...]:
    return FUSED_LAYERS if architecture == "phi3" else LAYERS


@cache
def base_of(architecture: str) -> BaseModel:
    """A base model in which some rows of each layer are zero, as padding rows and pruned channels are."""
    model = make_model(architecture, len(TOKENIZER))
    for name, parameter in model.named_parameters():
        if name.endswith("proj.weight"):
            parameter.data[::9] = 0
    return freeze(model, TOKENIZER, torch.device("cpu"), "tiny")


def copy_base(base: BaseModel, dtype: torch.dtype = torch.float32) -> BaseModel:
    return freeze(copy.deepcopy(base.model).to(dtype), base.tokenizer, base.device, base.name)


def write_adapters(base: BaseModel, folder: Path, kinds: Sequence[Kind]) -> list[Path]:
    """Write one adapter of each kind. Every second one changes only some of the layers."""
    layers = all_layers(base.model.config.model_type)
    return [
        random_adapter(
            base, folder / str(i), AdapterConfig(kind=k, r=r, alpha=a, target_modules=layers[: 2 if i % 2 else 7]), seed=i
        )
        for i, (k, r, a) in enumerate(kinds)
    ]


def manager_with(base: BaseModel, folders: Sequence[Path]) -> AdapterManager:
    manager = AdapterManager(base)
    for i, folder in enumerate(folders):
        manager.load(str(i), folder)
    return manager


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(ids).logits  # type: ignore[no-any-return]


def blend(base: BaseModel, models: Sequence[Any], adapters: TokenAdapters) -> Any:
    """A model whose weights are the base's plus the weighted changes of ``models``, by slot."""
    mean = copy.deepcopy(base.model)
    with torch.no_grad():
        for name, weight in mean.named_parameters():
            base_weight = weight.clone()
            for slot, share in adapters:
                weight += share * (models[slot - 1].get_parameter(name) - base_weight)
    return mean


KINDS = st.lists(st.tuples(st.sampled_from(["dora", "lora"]), st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=SLOTS)
BLEND_WEIGHTS = st.sampled_from([0.25, 0.5, 0.7, 1.0])
TOKEN_ADAPTERS = st.one_of(
    st.just(()),
    st.tuples(st.integers(1, SLOTS)).map(lambda pair: ((pair[0], 1.0),)),
    st.lists(st.tuples(st.integers(1, SLOTS), BLEND_WEIGHTS), max_size=3, unique_by=lambda pair: pair[0]).map(tuple),
)


@settings(max_examples=40)
@given(st.sampled_from(ARCHITECTURES), KINDS, st.lists(TOKEN_ADAPTERS, min_size=1, max_size=4), st.booleans())
def test_logits_equal_those_of_models_with_the_weighted_mean_of_merged_weights(
    tmp_path_factory: pytest.TempPathFactory, architecture: str, kinds: list[Kind], by_row: list[TokenAdapters], stacked: bool
) -> None:
    base = copy_base(base_of(architecture))
    by_row = [tuple((slot, share) for slot, share in adapters if slot <= len(kinds)) for adapters in by_row]
    folders = write_adapters(base, tmp_path_factory.mktemp("adapters"), kinds)
    models = [merged(base, folder) for folder in folders]
    ids = torch.randint(1, 300, (len(by_row), 5), generator=torch.Generator().manual_seed(len(kinds)))
    expected = [logits(blend(base, models, adapters), row[None])[0] for adapters, row in zip(by_row, ids, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter_manager, "STACKED_BYTES", 1 << 30 if stacked else 0)
        manager = manager_with(base, folders)
        manager.set_adapter_mapping([adapters for adapters in by_row for _ in range(ids.shape[1])])
        found = logits(base.model, ids)
    for row, model in zip(found, expected, strict=True):
        assert (row - model).abs().max() < 1e-4 * max(1.0, float(model.abs().max()))


@settings(max_examples=40)
@given(
    st.lists(TOKEN_ADAPTERS, min_size=1, max_size=40),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.booleans(),
)
def test_a_layer_equals_each_token_by_itself_and_leaves_base_tokens_as_they_are(
    by_token: list[TokenAdapters], stacked: bool, dtype: torch.dtype, biased: bool
) -> None:
    layer, adapters, multi_adapter = layer_with_adapters(dtype, biased=biased)
    x = torch.randn(1, len(by_token), layer.in_features, generator=torch.Generator().manual_seed(1)).to(dtype)
    multi_adapter.adapter_mapping.update(by_token, x.device, stacked=stacked)
    with torch.inference_mode():
        found, plain = multi_adapter(x)[0], layer(x)[0]
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    for token, token_adapters in enumerate(by_token):
        if not token_adapters:
            assert torch.equal(found[token].view(torch.uint8), plain[token].view(torch.uint8))
        expected = plain[token].float() + sum(w * adapters[slot](x[0, token].float()) for slot, w in token_adapters)
        assert (found[token].float() - expected).abs().max() < tolerance


def layer_with_adapters(
    dtype: torch.dtype, *, biased: bool
) -> tuple[torch.nn.Linear, dict[int, Callable[[Tensor], Tensor]], MultiAdapterLinear]:
    """A layer, the dense float64 function of each of `SLOTS` adapters of different ranks, and the layer with all of them."""
    from compass_ray.adapters.folded_layer import fold_layer
    from compass_ray.engine.adapter_mapping import AdapterMapping

    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 20, bias=biased).to(dtype).requires_grad_(False)
    multi_adapter = MultiAdapterLinear(layer, AdapterMapping())
    added: dict[int, Callable[[Tensor], Tensor]] = {}
    for slot in range(1, SLOTS + 1):
        a, b = torch.randn(slot, 24).to(dtype), 0.2 * torch.randn(20, slot).to(dtype)
        magnitude = None if slot == 2 else 0.5 + torch.rand(20)
        multi_adapter.set_adapter(slot, fold_layer(layer.weight, a, b, magnitude, 0.5))
        merged_weight = layer.weight.float() + 0.5 * b.float() @ a.float()
        scale = torch.ones(20) if magnitude is None else magnitude / merged_weight.norm(dim=1)
        change = scale[:, None] * merged_weight - layer.weight.float()
        added[slot] = lambda x, change=change: change @ x  # type: ignore[misc]
    return layer, added, multi_adapter


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_in_bfloat16_are_as_near_to_the_merged_model_as_it_is_to_itself_in_float32(
    architecture: str, tmp_path: Path
) -> None:
    base = copy_base(base_of(architecture))
    [folder] = write_adapters(base, tmp_path, [("dora", 4, 8)])
    exact = merged(base, folder)
    ids = torch.randint(1, 300, (1, 12), generator=torch.Generator().manual_seed(2))
    expected = logits(exact, ids)
    rounded = (logits(copy.deepcopy(exact).to(torch.bfloat16), ids).float() - expected).abs().mean()
    half = copy_base(base, torch.bfloat16)
    manager = manager_with(half, [folder])
    manager.set_adapter_mapping([((1, 1.0),)] * 12)
    assert (logits(half.model, ids).float() - expected).abs().mean() < 2 * rounded


def test_base_tokens_are_bit_equal_beside_adapters_and_blends(tmp_path: Path) -> None:
    base = copy_base(base_of("qwen2"))
    folders = write_adapters(base, tmp_path, [("dora", 4, 8), ("lora", 2, 2)])
    ids = torch.tensor([[5, 9, 31], [44, 7, 120], [3, 6, 200]])
    expected = logits(base.model, ids)
    manager = manager_with(base, folders)
    manager.set_adapter_mapping([(), (), (), *[((1, 1.0),)] * 3, *[((1, 0.5), (2, 0.5))] * 3])
    found = logits(base.model, ids)
    assert torch.equal(found[0], expected[0])
    assert not torch.allclose(found[1:], expected[1:], atol=1e-2)
    manager.set_adapter_mapping(())
    assert torch.equal(logits(base.model, ids), expected)
    manager.close()
    assert not any(isinstance(module, MultiAdapterLinear) for module in base.model.modules())


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_an_adapter_takes_little_more_than_its_parameters(kind: Any, tmp_path: Path) -> None:
    base = copy_base(base_of("llama"))
    folders = write_adapters(base, tmp_path, [(kind, 4 + i, 8) for i in range(0, 6, 2)])
    manager = manager_with(base, folders)
    parameters = sum(tensor.nbytes for folder in folders for tensor in load_file(folder / WEIGHTS_NAME).values())
    held = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for layer in base.model.modules()
        if isinstance(layer, MultiAdapterLinear)
        for each in layer.adapters.values()
        for tensor in (each.a, each.b, each.shift)
        if tensor is not None
    }
    assert sum(held.values()) == manager.nbytes
    assert parameters <= manager.nbytes < 1.1 * parameters
    manager.free_slot(manager.unload("0"))
    assert manager.nbytes < 0.8 * parameters


def test_copies_for_small_models_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = copy_base(base_of("llama"))
    manager = manager_with(base, write_adapters(base, tmp_path, [("dora", 2, 2)] * 3))
    by_token = [((slot, 1.0),) for slot in (1, 2, 3)]
    monkeypatch.setattr(adapter_manager, "STACKED_BYTES", manager.nbytes - 1)
    manager.set_adapter_mapping(by_token)
    assert manager.adapter_mapping.padded_groups is None
    manager.set_adapter_mapping(by_token[:2])
    assert manager.adapter_mapping.padded_groups is not None


def test_a_new_version_takes_its_own_slot_and_the_old_one_stays_until_it_is_freed(tmp_path: Path) -> None:
    base = copy_base(base_of("qwen2"))
    first, other, second = write_adapters(base, tmp_path, [("dora", 4, 8), ("dora", 2, 2), ("dora", 4, 9)])
    manager, ids = AdapterManager(base), torch.tensor([[5, 9, 31]])
    old = manager.load("sw", first)
    prepared = manager.prepare(second)
    manager.set_adapter_mapping([((old, 1.0),)] * 3)
    before = logits(base.model, ids)
    new = manager.install("sw", prepared)
    assert (manager.get_slot("sw"), manager.adapter_names, new != old) == (new, ("sw",), True)
    assert torch.equal(logits(base.model, ids), before)
    with pytest.raises(ModelError, match=f"slot {new} is served"):
        manager.free_slot(new)
    manager.free_slot(old)
    with pytest.raises(ModelError, match=f"slot {old} is empty"):
        manager.free_slot(old)
    with pytest.raises(ModelError, match="mapped to tokens but empty"):
        manager.set_adapter_mapping([((old, 1.0),)] * 3)
    assert manager.load("yo", other) == old
    manager.set_adapter_mapping([((old, 1.0),), ((new, 1.0),), ()])
    assert logits(base.model, ids).isfinite().all()
    assert manager.unload("yo") == old
    with pytest.raises(ModelError, match="'yo' is not loaded; loaded: sw"):
        manager.get_slot("yo")


def test_setting_the_same_mapping_again_keeps_the_groups(tmp_path: Path) -> None:
    base = copy_base(base_of("llama"))
    manager = manager_with(base, write_adapters(base, tmp_path, [("dora", 2, 2), ("dora", 2, 2)]))
    manager.set_adapter_mapping([((1, 1.0),), ((2, 1.0),)])
    groups = manager.adapter_mapping.groups
    manager.set_adapter_mapping((((1, 1.0),), ((2, 1.0),)))
    assert manager.adapter_mapping.groups is groups


def test_a_pass_with_another_number_of_tokens_than_the_mapping_fails(tmp_path: Path) -> None:
    base = copy_base(base_of("llama"))
    manager = manager_with(base, write_adapters(base, tmp_path, [("dora", 2, 2)]))
    manager.set_adapter_mapping([((1, 1.0),)] * 3)
    with pytest.raises(ValueError, match="3 tokens are mapped to adapters, but a layer got 4"):
        logits(base.model, torch.tensor([[1, 2, 3, 4]]))


def test_weights_do_not_change_when_the_file_does(tmp_path: Path) -> None:
    base = copy_base(base_of("llama"))
    [folder] = write_adapters(base, tmp_path, [("lora", 2, 2)])
    manager, ids = manager_with(base, [folder]), torch.tensor([[5, 9]])
    manager.set_adapter_mapping([((1, 1.0),)] * 2)
    before = logits(base.model, ids)
    size = (folder / WEIGHTS_NAME).stat().st_size
    with (folder / WEIGHTS_NAME).open("r+b") as file:
        file.write(b"\xff" * size)
    assert torch.equal(logits(base.model, ids), before)


def _change_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_NAME)
        change(tensors)
        save_file(tensors, folder / WEIGHTS_NAME)

    return damage


def _change_settings(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / CONFIG_NAME).read_text())
        (folder / CONFIG_NAME).write_text(json.dumps(settings | changes))

    return damage


Q = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / WEIGHTS_NAME).write_bytes(b"nothing"), "damaged"),
        (lambda folder: shutil.rmtree(folder), "lacks adapter_config"),
        (_change_tensors(lambda t: t.pop(f"{Q}.lora_B.weight")), "has only a, m for"),
        (_change_tensors(lambda t: t.pop(f"{Q}.lora_magnitude_vector")), "has only a, b for"),
        (
            _change_tensors(lambda t: [t.pop(name) for name in list(t) if name.startswith(Q)]),
            "lacks model.layers.1.self_attn.q_proj",
        ),
        (_change_tensors(lambda t: t.update({f"{Q}.lora_A.weight": torch.zeros(2, 99)})), "do not fit"),
        (_change_tensors(lambda t: t.update({f"{Q}.lora_A.weight": torch.zeros(2, 32, 1, 1)})), "do not fit"),
        (_change_tensors(lambda t: t.update({f"{Q}.lora_A.weight": torch.full((4, 32), torch.nan)})), "NaN"),
        (
            _change_tensors(lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(2)})),
            r"has tensor .*lm_head",
        ),
        (_change_tensors(lambda t: t.update({"base_model.model.x.lora_embedding_A": torch.zeros(2)})), "neither LoRA nor DoRA"),
        (_change_settings(modules_to_save=["lm_head"]), "modules_to_save"),
        (_change_settings(alora_invocation_tokens=[1, 2]), "alora_invocation_tokens"),
        (_change_settings(init_lora_weights="pissa_niter_4"), "init_lora_weights pissa"),
        (_change_settings(use_dora=False), "has only a, b, m for"),
        (_change_settings(r="many"), "damaged"),
        (_change_settings(lora_alpha=None), "damaged"),
        (_change_settings(peft_type="IA3"), "IA3"),
    ],
)
def test_an_invalid_directory_is_rejected_and_nothing_changes(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    base = copy_base(base_of("llama"))
    good, bad = write_adapters(base, tmp_path, [("dora", 2, 2), ("lora", 2, 2)])[0], tmp_path / "bad"
    shutil.copytree(good, bad)
    damage(bad)
    manager, ids = manager_with(base, [good]), torch.tensor([[5, 9]])
    manager.set_adapter_mapping([((1, 1.0),)] * 2)
    before = logits(base.model, ids)
    with pytest.raises(ModelError, match=message):
        manager.load("0", bad)
    assert (manager.adapter_names, manager.get_slot("0")) == (("0",), 1)
    assert torch.equal(logits(base.model, ids), before)


def peft_adapter(model: Any, folder: Path, **changes: Any) -> Path:
    get_peft_model(copy.deepcopy(model), LoraConfig(r=2, **changes)).save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["lm_head"], "is the output layer"),
        (["embed_tokens"], "neither LoRA nor DoRA"),
        (["q_proj", "lm_head"], "is the output layer"),
    ],
)
def test_layers_that_get_other_tokens_are_rejected(tmp_path: Path, targets: list[str], message: str) -> None:
    base = copy_base(base_of("llama"))
    with pytest.raises(ModelError, match=message):
        AdapterManager(base).load("x", peft_adapter(base.model, tmp_path, target_modules=targets))


def test_adapters_on_some_layers_by_peft_s_own_rules_are_served(tmp_path: Path) -> None:
    base = copy_base(base_of("llama"))
    folder = peft_adapter(base.model, tmp_path, target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers")
    assert AdapterManager(base).prepare(folder).layers.keys() == {"model.layers.1.self_attn.q_proj"}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (torch.nn.Conv1d(32, 32, 1), "is a Conv1d"),
        (type("Linear4bit", (torch.nn.Linear,), {})(32, 32), "is a Linear4bit"),
        (torch.nn.Linear(32, 32, dtype=torch.float64), "Linear of torch.float64"),
    ],
)
def test_layers_of_another_kind_are_rejected(tmp_path: Path, layer: torch.nn.Module, message: str) -> None:
    base = copy_base(base_of("llama"))
    [folder] = write_adapters(base, tmp_path, [("lora", 2, 2)])
    base.model.model.layers[0].self_attn.q_proj = layer
    with pytest.raises(ModelError, match=message):
        AdapterManager(base).load("x", folder)


def test_norms_are_those_of_the_merged_weight() -> None:
    torch.manual_seed(0)
    weight, a, b = torch.randn(6, 8), torch.randn(3, 8), torch.randn(6, 3)
    torch.testing.assert_close(row_norms(weight, a, b, 0.7), (weight + 0.7 * b @ a).norm(dim=1))
