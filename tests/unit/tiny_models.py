"""Tiny random base models, made from scratch: a tokenizer trained on a few lines and three architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.models.base_model import BaseModel, freeze

LINES = [
    "What is the capital of Kenya?",
    "Nairobi is the capital of Kenya.",
    "Mji mkuu wa Kenya ni Nairobi.",
    "Which currency is used in Uganda?",
    "The shilling is used in Uganda and in Tanzania.",
    "A B C D yes no 0 1 2 3 4 5 6 7 8 9",
]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_tokenizer(template: str | None = TEMPLATE) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(LINES, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer


def make_model(architecture: str, vocabulary: int, *, hidden: int = 32, layers: int = 2, seed: int = 0, **settings: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config_class, model_class = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
        "phi3": (Phi3Config, Phi3ForCausalLM),
    }[architecture]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        **({"pad_token_id": 0} if architecture == "phi3" else {}),
        **settings,
    )
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # fresh biases are zero, which would hide a bias that is scaled by mistake
                parameter.normal_(0, 0.5)
            elif parameter.ndim == 2:
                parameter.normal_(0, 0.15)
    return model


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(params=["qwen2", "llama"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_base(tokenizer: Any) -> Callable[..., BaseModel]:
    def make(architecture: str = "qwen2", **changes: Any) -> BaseModel:
        model = make_model(architecture, len(tokenizer), **changes)
        return freeze(model, tokenizer, torch.device("cpu"), "tiny")

    return make


@pytest.fixture
def base(make_base: Callable[..., BaseModel]) -> BaseModel:
    return make_base()


@pytest.fixture
def train_config() -> TrainConfig:
    return TrainConfig(
        adapter=AdapterConfig(r=4, alpha=8), learning_rate=5e-3, epochs=3, batch_size=4, max_tokens=64, holdout=0.2
    )
