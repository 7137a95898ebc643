"""Names of tensors in a PEFT directory: which one is the magnitude of which layer."""

from __future__ import annotations

MAGNITUDE_SUFFIXES = (".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def is_magnitude(name: str) -> bool:
    """Whether a tensor is the magnitude vector m of a layer.

    >>> is_magnitude("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector")
    True
    """
    return name.endswith(MAGNITUDE_SUFFIXES)


def to_b_name(name: str) -> str:
    """Name of B in the layer of a magnitude; other names are returned unchanged.

    vLLM knows the names of B. It maps them to the names of its own modules, so this also maps those of magnitudes.

    >>> to_b_name("model.layers.0.mlp.up_proj.lora_magnitude_vector.weight")
    'model.layers.0.mlp.up_proj.lora_B.weight'
    """
    for suffix in MAGNITUDE_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix) + ".lora_B.weight"
    return name
