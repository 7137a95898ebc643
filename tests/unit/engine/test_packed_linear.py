"""Packed layers against torch's own products: results, memory, and what is restored."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compass_ray.config import AdapterConfig
from compass_ray.engine import packed_linear
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.packed_linear import PackedLinear, PackedWeight, pack_linear_layers, unpack_linear_layers
from compass_ray.models.base_model import BaseModel
from tests.unit.random_adapters import random_adapter
from tests.unit.tiny_models import LAYERS

pytestmark = pytest.mark.skipif(not packed_linear.is_supported(), reason="layers are packed on x86 processors with oneDNN only")
LIMITS = EngineConfig(max_num_seqs=4, max_model_len=256)


def make_layer(inner: int, out: int, *, biased: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(inner * 1000 + out)
    return nn.Linear(inner, out, bias=biased).to(dtype).requires_grad_(False)


class Pair(nn.Module):
    """Two layers, of which the second may use the weight of an embedding."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.first, self.second = make_layer(16, 16), make_layer(16, 40)
        self.embedding = nn.Embedding(40, 16).requires_grad_(False)
        if tied:
            self.second.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 40),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_packed_layer_computes_the_same_and_unpacks_bit_for_bit(
    inner: int, out: int, tokens: int, biased: bool, is_shared: bool, dtype: torch.dtype
) -> None:
    layer, taken = (make_layer(inner, out, biased=biased, dtype=dtype) for _ in range(2))
    weight = taken.weight
    packed = PackedLinear(taken, PackedWeight([taken], is_shared=is_shared), 0)
    x = torch.randn(1, tokens, inner).to(dtype)
    found, expected = (
        packed(x),
        nn.functional.linear(x.double(), layer.weight.double(), None if not biased else layer.bias.double()),
    )
    assert found.shape == expected.shape
    assert found.dtype == dtype
    assert torch.allclose(found.double(), expected, atol=1e-5 if dtype == torch.float32 else 3e-2)
    assert torch.equal(packed.weight, layer.weight)
    restored = packed.unpack()
    assert torch.equal(restored(x), layer(x))
    assert (restored.weight is weight) == is_shared


def test_the_original_weights_are_freed() -> None:
    model = Pair()
    weights = [weakref.ref(model.first.weight), weakref.ref(model.second.weight)]
    pack_linear_layers(model)
    gc.collect()
    assert [weight() for weight in weights] == [None, None]


def test_a_tied_weight_stays_one_tensor() -> None:
    model = Pair(tied=True)
    pack_linear_layers(model)
    assert model.second.weight is model.embedding.weight
    assert isinstance(model.second, PackedLinear)
    unpack_linear_layers(model)
    assert model.second.weight is model.embedding.weight
    assert type(model.second) is nn.Linear


def test_unpacking_restores_every_layer() -> None:
    model, x = Pair(), torch.randn(3, 16)
    before = model(x)
    pack_linear_layers(model)
    assert all(isinstance(layer, PackedLinear) for layer in (model.first, model.second))
    unpack_linear_layers(model)
    assert torch.equal(model(x), before)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in Pair().named_parameters()]


class Attention(nn.Module):
    """Three layers with the same input, of different widths."""

    def __init__(self, *, biased: bool, value_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.q_proj, self.k_proj = make_layer(24, 48, biased=biased), make_layer(24, 16, biased=biased)
        self.v_proj = make_layer(24, 20, biased=biased, dtype=value_dtype)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in (self.q_proj, self.k_proj, self.v_proj)]


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans()), max_size=12))
def test_layers_with_the_same_input_are_one_product_in_any_order_of_calls(
    biased: bool, calls: list[tuple[int, int, bool]]
) -> None:
    """Callers may change an output in place, as adapters do, repeat a call, and alternate between inputs."""
    model, packed = Attention(biased=biased), Attention(biased=biased)
    pack_linear_layers(packed)
    inputs = [torch.randn(1, 5, 24), torch.randn(1, 5, 24)]
    layers = [(model.q_proj, packed.q_proj), (model.k_proj, packed.k_proj), (model.v_proj, packed.v_proj)]
    for layer, which, changes in calls:
        expected, found = (each(inputs[which]) for each in layers[layer])
        assert torch.allclose(found, expected, atol=1e-5)
        if changes:
            found.view(-1, found.shape[-1]).zero_()


def test_large_products_in_float32_are_bit_equal_to_those_of_the_model() -> None:
    model, x = Attention(biased=True), torch.randn(1, 200, 24)
    expected = model(x)
    pack_linear_layers(model)
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))


def test_one_product_serves_all_layers_with_the_same_input(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Attention(biased=True), torch.randn(2, 3, 24)
    expected = model(x)
    pack_linear_layers(model)
    weight = model.q_proj._packed_weight
    assert weight is model.k_proj._packed_weight is model.v_proj._packed_weight
    found = model(x)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert found[0].untyped_storage().data_ptr() == found[2].untyped_storage().data_ptr()
    assert weight._input is None, "the input is kept after the last layer took its output"
    unpack_linear_layers(model)
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))


def test_layers_of_another_type_are_products_of_their_own() -> None:
    model = Attention(biased=False, value_dtype=torch.bfloat16)
    pack_linear_layers(model)
    layers = [model.q_proj, model.k_proj, model.v_proj]
    assert len({id(layer._packed_weight) for layer in layers}) == 3


def test_layers_that_are_not_plain_frozen_linear_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(nn.Linear):
        """Another kind of layer."""

    model = nn.Sequential(Other(4, 4), nn.Linear(4, 4), nn.Linear(4, 4).half()).requires_grad_(False)
    model[1].requires_grad_(True)
    layers = list(model)
    pack_linear_layers(model)
    assert list(model) == layers
    monkeypatch.setattr(packed_linear, "_CAPABILITIES", ())
    plain = Pair()
    pack_linear_layers(plain)
    assert type(plain.first) is nn.Linear


@pytest.mark.parametrize("pack_weights", [True, False])
def test_the_engine_packs_its_base_until_it_closes(
    make_base: Callable[..., BaseModel], tmp_path: Path, pack_weights: bool
) -> None:
    base, ids = make_base("qwen2"), torch.arange(1, 9)[None]
    folder = random_adapter(base, tmp_path / "a", AdapterConfig(r=2, target_modules=LAYERS), seed=0)
    with torch.inference_mode():
        before = base.model(ids).logits
    engine = Engine(base, EngineConfig(max_num_seqs=4, max_model_len=256, pack_weights=pack_weights))
    engine.load_adapter("a", folder)
    assert any(isinstance(module, PackedLinear) for module in base.model.modules()) == pack_weights
    engine.close()
    assert not any(isinstance(module, PackedLinear) for module in base.model.modules())
    with torch.inference_mode():
        assert torch.equal(base.model(ids).logits, before)


def test_a_rejected_base_is_restored(make_base: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray.engine import model_runner
    from compass_ray.models.errors import ModelError

    base = make_base()
    monkeypatch.setattr(model_runner, "_MAX_DIVERGENCE", -1.0)
    with pytest.raises(ModelError, match="differ"):
        Engine(base, LIMITS)
    assert not any(isinstance(module, PackedLinear) for module in base.model.modules())
