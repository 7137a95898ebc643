"""Memory of a base model and of adapter training on it, from the model's configuration only: no weights are read.

Key property: parameters are counted exactly, on a model without storage. Activations are an estimate, fitted to what PyTorch
saves for the backward pass in Llama-like blocks (Llama, Qwen2 and Phi3: 2-10% above the measured value). Other architectures
can differ more, in particular mixtures of experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.config import TrainConfig
from compass_ray.models.errors import ModelError, describe_loading_error
from compass_ray.models.model_resolver import resolve_model
from compass_ray.models.remote_code import load_options

_BYTES = {"float32": 4, "bfloat16": 2}
_OPTIMISED = 16
"""Bytes per trained parameter in float32: value, gradient and two optimizer moments."""
_PER_HIDDEN, _PER_INNER = 15, 6
"""Values saved per token and block, per unit of the hidden size and of the MLP's inner size."""
_LOGIT = 12
"""Additional bytes per logit: its float32 copy, softmax and gradient."""
_RESPONSE_SHARE = 0.5
"""Share of tokens in responses. Logits are computed for these only."""


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters, and the sizes that determine the activations."""

    parameters: int
    adapter: int
    hidden: int
    inner: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of adapter training: the constant part, and the part per token of a forward pass."""

    weights: int
    adapter: int
    token: int

    def max_tokens_within(self, available: float) -> int:
        """Number of tokens that fit at once, in addition to weights and adapter."""
        return max(int((available - self.weights - self.adapter) / self.token), 0)


def model_size(config: TrainConfig) -> ModelSize:
    """Size of the base model, from its ``config.json`` and a model without storage.

    Raises:
        ModelError: the configuration cannot be loaded or is not of a causal language model, or the adapter's layers are missing.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from compass_ray.adapters.dora import find_target_layers

    source = load_options(config)
    code = {key: value for key, value in source.items() if key != "revision"}
    try:
        found = AutoConfig.from_pretrained(resolve_model(config.base_model, "base_model"), **source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(found, **code)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise ModelError(f"cannot determine the size of {config.base_model!r} ({describe_loading_error(error)})") from error
    adapted = find_target_layers(model, config.adapter.target_modules).values()
    magnitudes = config.adapter.kind == "dora"
    text = found.get_text_config()
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        adapter=sum(config.adapter.r * (m.in_features + m.out_features) + magnitudes * m.out_features for m in adapted),
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
    )


def training_memory(size: ModelSize, config: TrainConfig, *, checkpointing: bool) -> TrainingMemory:
    """Estimate the memory of training.

    >>> size = ModelSize(8_000_000_000, 40_000_000, hidden=4096, inner=14336, layers=32, vocabulary=128_000)
    >>> found = training_memory(size, TrainConfig(dtype="bfloat16"), checkpointing=False)
    >>> found.weights, found.adapter, found.token
    (16000000000, 640000000, 10333184)
    """
    each = _BYTES[config.dtype]
    block = _PER_HIDDEN * size.hidden + _PER_INNER * size.inner
    saved = block + size.layers * size.hidden if checkpointing else size.layers * block
    logits = int(_RESPONSE_SHARE * size.vocabulary * (each + _LOGIT))
    return TrainingMemory(size.parameters * each, size.adapter * _OPTIMISED, saved * each + logits)
