"""How large a base model and the training of an adapter on it are, from its configuration alone: no weights are read.

Key property: parameters are counted exactly, on a model without storage; activations are an estimate, fitted to what
PyTorch keeps for the way back in blocks of Llama's kind (Llama, Qwen2, Phi3 shapes, 2-10% above the measured). Other
architectures, and mixtures of experts above all, may differ more.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.config import TrainConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import resolve_model

_BYTES = {"float32": 4, "bfloat16": 2}
_OPTIMISED = 16
"""Bytes of one trained parameter: itself, its gradient and two moments, in float32."""
_PER_HIDDEN, _PER_INNER = 15, 6
"""Numbers kept of a token in a block, by its width and by the width inside its perceptron."""
_LOGIT = 12
"""Bytes of one logit beside its own: in float32, its softmax, and the gradient."""
_RESPONSE_SHARE = 0.5
"""Share of tokens that stand in responses, on which alone logits are computed."""


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters, and the widths that activations follow."""

    parameters: int
    adapter: int
    hidden: int
    inner: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of training an adapter: what is there all the time, and what each token of a forward pass adds."""

    weights: int
    adapter: int
    token: int

    def max_tokens_within(self, available: float) -> int:
        """How many tokens at once fit beside weights and adapter."""
        return max(int((available - self.weights - self.adapter) / self.token), 0)


def model_size(config: TrainConfig) -> ModelSize:
    """Sizes of the base model, from its ``config.json`` and a model without storage.

    Raises:
        ModelError: the configuration cannot be had or is of no causal language model, or the adapter does not fit it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from compass_ray.adapters.dora import find_target_layers

    trust = config.trust_remote_code
    try:
        found = AutoConfig.from_pretrained(
            resolve_model(config.base_model, "base_model"), revision=config.revision, trust_remote_code=trust
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(found, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise ModelError(f"the size of {config.base_model!r} is unknown ({str(error).splitlines()[0]})") from error
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
    """What training takes.

    >>> size = ModelSize(8_000_000_000, 40_000_000, hidden=4096, inner=14336, layers=32, vocabulary=128_000)
    >>> found = training_memory(size, TrainConfig(dtype="bfloat16"), checkpointing=False)
    >>> found.weights, found.adapter, found.token
    (16000000000, 640000000, 10333184)
    """
    each = _BYTES[config.dtype]
    block = _PER_HIDDEN * size.hidden + _PER_INNER * size.inner
    kept = block + size.layers * size.hidden if checkpointing else size.layers * block
    logits = int(_RESPONSE_SHARE * size.vocabulary * (each + _LOGIT))
    return TrainingMemory(size.parameters * each, size.adapter * _OPTIMISED, kept * each + logits)
