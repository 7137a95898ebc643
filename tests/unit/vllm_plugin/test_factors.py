"""An adapter is read completely or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compass_ray.vllm_plugin.errors import DoraAdapterError
from compass_ray.vllm_plugin.factors import collect_factors, require_no_magnitudes, split_magnitudes
from compass_ray.vllm_plugin.tensor_names import to_b_name


def _parse(name: str) -> tuple[str, bool]:
    module, factor, _ = to_b_name(name).rsplit(".", 2)
    return module, factor == "lora_A"


def _tensors(*modules: str) -> dict[str, Tensor]:
    found = {}
    for module in modules:
        found |= {
            f"{module}.lora_A.weight": torch.randn(2, 6, dtype=torch.bfloat16),
            f"{module}.lora_B.weight": torch.randn(5, 2),
            f"{module}.lora_magnitude_vector": torch.rand(5),
        }
    return found


def test_factors_are_float32_and_have_their_scaling() -> None:
    tensors = _tensors("a.q_proj", "a.k_proj")
    found = collect_factors(tensors, _parse, {"a.q_proj": 2.0, "a.k_proj": 0.5})
    assert {module: factors.scaling for module, factors in found.items()} == {"a.q_proj": 2.0, "a.k_proj": 0.5}
    assert found["a.q_proj"].a.dtype == torch.float32
    torch.testing.assert_close(found["a.q_proj"].a, tensors["a.q_proj.lora_A.weight"].float())
    torch.testing.assert_close(found["a.k_proj"].magnitude, tensors["a.k_proj.lora_magnitude_vector"])


def test_a_magnitude_of_former_peft_versions_is_flattened() -> None:
    tensors = _tensors("q")
    tensors["q.lora_magnitude_vector"] = tensors["q.lora_magnitude_vector"][None]
    assert collect_factors(tensors, _parse, {"q": 1.0})["q"].magnitude.shape == (5,)


@pytest.mark.parametrize(
    ("removed", "said"),
    [("lora_A.weight", "no A factor: k"), ("lora_B.weight", "no B factor: k"), ("lora_magnitude_vector", "no magnitude vector")],
)
def test_a_missing_part_is_named(removed: str, said: str) -> None:
    tensors = _tensors("q", "k")
    del tensors[f"k.{removed}"]
    with pytest.raises(DoraAdapterError, match=said):
        collect_factors(tensors, _parse, {"q": 1.0, "k": 1.0})


def test_a_magnitude_without_a_and_b_is_named() -> None:
    tensors = _tensors("q") | {"v.lora_magnitude_vector": torch.ones(5)}
    with pytest.raises(DoraAdapterError, match=r"no A and B: v\."):
        collect_factors(tensors, _parse, {"q": 1.0})


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("lora_A.weight", torch.ones(3, 6)), ("lora_B.weight", torch.ones(4, 2)), ("lora_magnitude_vector", torch.ones(6))],
)
def test_shapes_that_do_not_fit_together_are_named(name: str, tensor: Tensor) -> None:
    with pytest.raises(DoraAdapterError, match="shapes of q do not fit together"):
        collect_factors(_tensors("q") | {f"q.{name}": tensor}, _parse, {"q": 1.0})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"])
def test_values_that_are_not_finite_are_refused(part: str, value: float) -> None:
    tensors = _tensors("q")
    tensors[f"q.{part}"].view(-1)[3] = value
    with pytest.raises(DoraAdapterError, match="not finite"):
        collect_factors(tensors, _parse, {"q": 1.0})


def test_an_adapter_that_says_lora_has_no_magnitudes() -> None:
    plain, magnitudes = split_magnitudes(_tensors("q"))
    assert sorted(plain) == ["q.lora_A.weight", "q.lora_B.weight"]
    require_no_magnitudes({})
    with pytest.raises(DoraAdapterError, match="use_dora is false"):
        require_no_magnitudes(magnitudes)


def test_an_error_names_at_most_four_layers() -> None:
    many: dict[str, Any] = {f"layer{i}": torch.ones(1) for i in range(9)}
    with pytest.raises(DoraAdapterError, match=r"layer0, layer1, layer2, layer3 and 5 more"):
        require_no_magnitudes(many)
