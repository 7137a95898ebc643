"""Random base models with a real architecture, and adapters for them.

They are as fast as trained models of that size. Their replies are meaningless and never end early, so every implementation
generates the same number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compass_ray.adapters.dora import attach
from compass_ray.adapters.peft_io import write_adapter
from compass_ray.config import AdapterConfig
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.model_resolver import resolve_model

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of a Llama: widths, layers, heads, and heads of keys and values."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int


def random_llama(shape: LlamaShape, *, seed: int, device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> BaseModel:
    """A Llama with random weights and the atlas's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("atlas", "base_model"))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    with device:
        model: Any = LlamaForCausalLM(config).to(dtype)
    return _endless(model, tokenizer, device)


def random_base(hidden: int, layers: int, *, seed: int) -> BaseModel:
    """A Qwen2 with random weights and the atlas's tokenizer, on the CPU."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("atlas", "base_model"))
    torch.manual_seed(seed)
    model: Any = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=False,
        )
    )
    return _endless(model, tokenizer)


def _endless(model: Any, tokenizer: Any, device: torch.device = CPU) -> BaseModel:
    ends = {tokenizer.eos_token_id, model.generation_config.eos_token_id} - {None}
    with torch.no_grad():
        # A logit of 0 is never the greatest of thousands, so no reply ends by itself.
        model.lm_head.weight[sorted(ends)] = 0
    return freeze(model, tokenizer, device, "random")


def random_adapter(
    base: BaseModel, folder: Path, config: AdapterConfig, *, seed: int, b_std: float = 0.02, magnitude_spread: float = 0.0
) -> Path:
    """Write an adapter as a PEFT directory that differs from the base.

    ``b_std`` is the standard deviation of B; magnitudes grow by up to the share ``magnitude_spread``.
    """
    adapter = attach(base.model, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter.parameters().items():
            if name.endswith("lora_B.weight"):
                parameter.copy_(b_std * torch.randn(parameter.shape, generator=generator))
            if magnitude_spread and name.endswith("magnitude_vector"):
                parameter.mul_(1 + magnitude_spread * torch.rand(parameter.shape, generator=generator))
    write_adapter(folder, config, adapter.tensors(), base.name)
    adapter.detach()
    return folder
