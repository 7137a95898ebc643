"""Weight rows of zeros under DoRA: padding rows and pruned channels give no NaN, can learn, and agree in every reader."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor, nn

from compass_ray.adapters.dora import AdaptedLinear, attach, attach_for_training
from compass_ray.adapters.folded_layer import fold_layer
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.engine.adapter_manager import AdapterManager
from compass_ray.engine.adapter_mapping import AdapterMapping
from compass_ray.engine.multi_adapter_linear import MultiAdapterLinear
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import TrainingRow, encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.fisher import diagonal_fisher
from tests.unit.random_adapters import merged

OUT, INNER, RANK = 6, 8, 2
LAYER = "model.layers.0.mlp.down_proj"
DEAD = "model.layers.1.mlp.up_proj"
TENSORS = f"base_model.model.{LAYER}"
IDS = torch.tensor([[5, 9, 31, 44, 7, 120, 3]])
ROWS = [TrainingRow(f"Which number comes after {i}?", f"{(i + 1) % 10} yes") for i in range(8)]
ZEROS = st.sets(st.integers(0, OUT - 1))


def random_layer(zeros: set[int], untrained: set[int], dtype: torch.dtype = torch.float32, scale: float = 1.0) -> AdaptedLinear:
    """A layer with an adapter. Rows ``zeros`` of W are zero or as small as ``scale``; rows ``untrained`` of B are zero."""
    generator = torch.Generator().manual_seed(len(zeros) + 10 * len(untrained))
    linear = nn.Linear(INNER, OUT, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.randn(OUT, INNER, generator=generator))
    linear.weight[list(zeros)] *= 0.0 if scale == 1.0 else scale
    layer = AdaptedLinear(linear.to(dtype), AdapterConfig(r=RANK, alpha=4), generator)
    assert layer.m is not None
    with torch.no_grad():
        trained = [row for row in range(OUT) if row not in untrained]
        layer.b[trained] = torch.randn(len(trained), RANK, generator=generator)
        layer.m[trained] += torch.rand(len(trained), generator=generator)
    return layer


def dense_output(layer: AdaptedLinear, x: Tensor, a: Tensor, b: Tensor, m: Tensor) -> Tensor:
    """The formula of DoRA in float64, with a dense product, and with s = 1 for rows of length zero."""
    weight = layer.base.weight.double() + layer.scaling * (b @ a)
    norm = weight.detach().norm(dim=1)
    return x @ weight.T * torch.where(norm > 0, m / norm.where(norm > 0, 1.0), 1.0)


@settings(max_examples=60)
@given(ZEROS, ZEROS)
def test_output_and_gradients_equal_the_dense_formula(zeros: set[int], untrained: set[int]) -> None:
    layer = random_layer(zeros, untrained)
    x = torch.randn(5, INNER, generator=torch.Generator().manual_seed(1))
    target = torch.randn(5, OUT, generator=torch.Generator().manual_seed(2))
    exact = [p.detach().double().requires_grad_() for p in (layer.a, layer.b, layer.m) if p is not None]
    expected = dense_output(layer, x.double(), *exact)
    (expected - target).square().sum().backward()
    found = layer(x)
    (found - target).square().sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    for parameter, exactly in zip((layer.a, layer.b, layer.m), exact, strict=True):
        assert parameter is not None
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.double(), exactly.grad, rtol=1e-3, atol=1e-4)


@settings(max_examples=60)
@given(ZEROS, ZEROS, st.booleans())
def test_the_engine_computes_what_training_computed(zeros: set[int], untrained: set[int], stacked: bool) -> None:
    layer = random_layer(zeros, untrained)
    mapping = AdapterMapping()
    served = MultiAdapterLinear(layer.base, mapping)
    assert layer.m is not None
    for slot in (1, 2):
        served.set_adapter(slot, fold_layer(layer.base.weight, layer.a.data, layer.b.data, layer.m.data, layer.scaling))
    x = torch.randn(1, 4, INNER, generator=torch.Generator().manual_seed(1))
    mapping.update([((1, 1.0),), ((2, 1.0),), ((1, 1.0),), ()], x.device, stacked=stacked)
    with torch.no_grad():
        torch.testing.assert_close(served(x)[0, :3], layer(x)[0, :3], rtol=1e-4, atol=1e-5)
        assert torch.equal(served(x)[0, 3], layer.base(x)[0, 3])


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, 1e-30), (torch.float32, 1e-45), (torch.bfloat16, 1e-38), (torch.float16, 1e-7), (torch.float16, 6e-8)],
)
def test_rows_whose_squares_underflow_start_as_the_base_and_stay_finite(dtype: torch.dtype, scale: float) -> None:
    layer = random_layer({1, 4}, set(range(OUT)), dtype, scale)
    x = torch.randn(5, INNER, generator=torch.Generator().manual_seed(1)).to(dtype)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    assert torch.allclose(layer(x), layer.base(x), atol=1e-6)
    for _ in range(4):
        optimizer.zero_grad()
        layer(x).float().sub(1.0).square().sum().backward()
        optimizer.step()
        assert all(bool(p.isfinite().all() and p.grad is not None and p.grad.isfinite().all()) for p in trained)
    assert bool(layer(x).isfinite().all())


def test_a_row_of_zeros_learns() -> None:
    layer = random_layer({1, 4}, set(range(OUT)))
    x, wanted = torch.randn(16, INNER, generator=torch.Generator().manual_seed(1)), layer.base.weight.clone()
    wanted[[1, 4]] = torch.randn(2, INNER, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.02, weight_decay=0.0)
    first = None
    for _ in range(200):
        optimizer.zero_grad()
        error = (layer(x) - x @ wanted.T).square().mean(0)
        error.sum().backward()
        optimizer.step()
        first = error.detach() if first is None else first
    assert first is not None
    assert bool((error[[1, 4]] < 0.1 * first[[1, 4]]).all())


@pytest.fixture
def pruned(base: BaseModel) -> BaseModel:
    """A base model with rows of zeros: padding, and channels that have no effect, so that their rows get no gradient."""
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if name.endswith("proj.weight"):
                parameter[::5] = 0
        base.model.get_submodule("model.layers.1.mlp.down_proj").weight[:, :9] = 0
        base.model.get_submodule(DEAD).weight[:9] = 0
    return base


def test_a_pruned_base_trains_and_every_reader_of_the_directory_agrees(
    pruned: BaseModel, train_config: TrainConfig, tmp_path: Path
) -> None:
    original = copy.deepcopy(pruned.model)
    config = train_config.model_copy(update={"adapter": AdapterConfig(r=2, alpha=4, target_modules=("up_proj", "v_proj"))})
    with AdapterTrainer(pruned, ROWS, ROWS[:2], None, config, seed=3) as trainer:
        result = trainer.run()
        trainer.save(tmp_path)
        with torch.no_grad():
            trained = pruned.model(IDS).logits
    assert result.history[-1].train_loss < result.history[0].train_loss
    stored = read_adapter(tmp_path)
    assert bool((stored.tensors[f"base_model.model.{DEAD}.lora_magnitude_vector"][:9] == 0).all())
    with torch.no_grad():
        peft = PeftModel.from_pretrained(copy.deepcopy(original), str(tmp_path)).eval()(IDS).logits
        exact = PeftModel.from_pretrained(copy.deepcopy(original).double(), str(tmp_path)).merge_and_unload()(IDS).logits
        whole = merged(pruned, tmp_path)(IDS).logits
    for logits in (trained, peft, whole):
        torch.testing.assert_close(logits.double(), exact, rtol=1e-4, atol=1e-4)
    with attach_for_training(pruned.model, stored):
        fisher = diagonal_fisher(pruned.model, encode_rows(pruned.tokenizer, ROWS[:2], 64))
    assert all(bool(each.isfinite().all()) for each in fisher.values())
    with AdapterTrainer(pruned, ROWS, [], None, config, seed=3, initial=tmp_path) as again:
        assert again.run().history[-1].train_loss < result.history[0].train_loss
    manager = AdapterManager(pruned)
    manager.load("sw@v0001", tmp_path)
    manager.set_adapter_mapping([((manager.get_slot("sw@v0001"), 1.0),)] * IDS.shape[1])
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(IDS).logits.double(), exact, rtol=1e-4, atol=1e-4)
    manager.close()


def test_weights_that_are_not_finite_are_refused_by_layer(base: BaseModel) -> None:
    base.model.get_submodule(LAYER).weight.data[1, 2] = float("nan")
    with pytest.raises(ModelError, match=rf"layer {LAYER} of the base model has NaN.*; download or convert the model again"):
        attach(base.model, AdapterConfig(target_modules=("down_proj",)), seed=0)
    linear = base.model.get_submodule(LAYER)
    a, b = torch.randn(2, linear.in_features), torch.randn(linear.out_features, 2)
    with pytest.raises(ModelError, match="the DoRA scale of a row is not finite"):
        fold_layer(linear.weight, a, b, torch.ones(linear.out_features), 2.0)
