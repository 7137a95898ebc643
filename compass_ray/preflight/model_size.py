"""Memory of a base model, of adapter training, scoring and serving, from the configuration only: no weights are read.

Key property: parameters are counted exactly, on a model without storage. `models.token_memory` estimates the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compass_ray.config import ServeConfig, TrainConfig
from compass_ray.models.errors import ModelError, describe_loading_error
from compass_ray.models.model_resolver import resolve_model
from compass_ray.models.remote_code import load_options
from compass_ray.models.token_memory import BYTES, TRAINED_VALUE, LayerShape

_SAMPLED_LOGIT = 34
"""Bytes per logit while tokens are sampled without a nucleus: logits and their copy in float32 (4 + 4), sorted probabilities and
their order (4 + 8), their sums (4), two masks (2), and a mask as int64 while it is summed (8)."""


@dataclass(frozen=True)
class LayerWidths:
    """Sums over the layers that vLLM prepares for adapters, whether an adapter has them or not."""

    inputs_and_outputs: int = 0
    """Of linear layers and embeddings."""
    outputs: int = 0
    """Of linear layers without the last one, which gives the logits."""


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters, the shape that determines what a token takes, and widths that determine what adapters take."""

    parameters: int
    adapter: int
    shape: LayerShape
    widths: LayerWidths = LayerWidths()

    @property
    def weights(self) -> int:
        """Bytes of the base model."""
        return self.parameters * self.shape.itemsize

    @property
    def training(self) -> int:
        """Bytes of adapter training that do not depend on the rows: model, adapter with optimizer, a slice of logits."""
        return self.weights + self.optimizer + self.shape.logit_slice()

    @property
    def optimizer(self) -> int:
        """Bytes of an adapter's parameters with gradients and optimizer moments."""
        return self.adapter * TRAINED_VALUE

    @property
    def scoring(self) -> int:
        """Bytes of scoring that do not depend on the questions: model and a slice of logits."""
        return self.weights + self.shape.logit_slice()

    def serving(self, serve: ServeConfig, adapters: int) -> int:
        """Bytes of a replica beside its key-value cache: model, adapters, and the logits of a decoding step."""
        return self.weights + adapters * self.adapter * self.shape.itemsize + self.step_logits(serve)

    def step_logits(self, serve: ServeConfig) -> int:
        """Bytes of the logits of a decoding step in which every request samples (see `engine.sampler`)."""
        return _SAMPLED_LOGIT * serve.max_num_seqs * self.shape.vocabulary

    def slot(self, serve: ServeConfig) -> int:
        """Bytes of a request's place in the key-value cache."""
        return self.shape.slot(serve.max_prompt_tokens + serve.max_tokens)


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
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        adapter=sum(config.adapter.r * (m.in_features + m.out_features) + magnitudes * m.out_features for m in adapted),
        shape=LayerShape.of(found, BYTES[config.dtype]),
        widths=_sum_widths(model),
    )


def _sum_widths(model: Any) -> LayerWidths:
    from torch import nn

    head = model.get_output_embeddings()
    linear = [each for each in model.modules() if isinstance(each, nn.Linear)]
    embeddings = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    return LayerWidths(
        sum(each.in_features + each.out_features for each in linear)
        + sum(each.num_embeddings + each.embedding_dim for each in embeddings),
        sum(each.out_features for each in linear if each is not head),
    )
