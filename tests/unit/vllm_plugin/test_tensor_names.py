"""Names that PEFT writes, in every form that it has had."""

from __future__ import annotations

import pytest

from compass_ray.vllm_plugin.tensor_names import is_magnitude, to_b_name

LAYER = "base_model.model.model.layers.3.self_attn.q_proj"


@pytest.mark.parametrize("suffix", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
def test_a_magnitude_has_the_module_of_its_b(suffix: str) -> None:
    assert is_magnitude(f"{LAYER}.{suffix}")
    assert to_b_name(f"{LAYER}.{suffix}") == f"{LAYER}.lora_B.weight"


@pytest.mark.parametrize("name", [f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight", f"{LAYER}.weight", "score.weight", ""])
def test_other_names_stay(name: str) -> None:
    assert not is_magnitude(name)
    assert to_b_name(name) == name
