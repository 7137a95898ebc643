"""Encoders that transformers itself loads: pooling and task adapter, compared with transformers and PEFT alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from compass_ray.config import EmbedConfig
from compass_ray.models.encoder import Encoder
from compass_ray.models.errors import ModelError
from tests.unit.models.small_encoder import write_gte, write_jina
from tests.unit.tiny_models import make_model, make_tokenizer

TEXTS = ["Mji mkuu wa Kenya ni upi?", "Nairobi", "What is the capital of Kenya, and since when?"]


def _expected(folder: Path, pooling: str, adapter: str | None = None) -> npt.NDArray[np.float32]:
    """Unit rows by transformers alone, one text after the other."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    if adapter:
        model.load_adapter(str(folder / adapter))
    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        row = states[0] if pooling == "cls" else states.mean(0)
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.fixture
def make_causal(tmp_path: Path) -> Callable[..., Path]:
    """Write a random causal language model with its tokenizer."""

    def make(architecture: str, **settings: Any) -> Path:
        tokenizer = make_tokenizer()
        make_model(architecture, len(tokenizer)).eval().save_pretrained(tmp_path)
        for name, value in settings.items():
            setattr(tokenizer, name, value)
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return make


def _weighted_by_position(folder: Path) -> npt.NDArray[np.float32]:
    """Unit rows of the last hidden states of the language model, each text alone, token i of n with the weight i."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            [states] = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[-1]
        row = sum((i + 1) * state for i, state in enumerate(states))
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [("qwen2", {"padding_side": "left"}), ("llama", {"padding_side": "right"}), ("phi3", {"pad_token": None})],
)
def test_a_causal_model_is_an_encoder_by_its_states_weighted_by_position(
    make_causal: Callable[..., Path], architecture: str, settings: dict[str, Any]
) -> None:
    folder = make_causal(architecture, **settings)
    found = Encoder(EmbedConfig(encoder=str(folder), pooling="weightedmean"), device="cpu").encode(TEXTS, batch_size=8)
    np.testing.assert_allclose(found, _weighted_by_position(folder), atol=1e-5)


def _add_adapter(folder: Path, name: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model: Any = get_peft_model(AutoModel.from_pretrained(folder), lora)
    model.save_pretrained(str(folder / name))


@pytest.mark.parametrize(("write", "pooling"), [(write_gte, "cls"), (write_jina, "mean")])
def test_an_embedding_is_the_pooled_state(tmp_path: Path, write: Callable[[Path], None], pooling: str) -> None:
    write(tmp_path)
    encoder = Encoder(EmbedConfig.model_validate({"encoder": str(tmp_path), "pooling": pooling}), device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=2), _expected(tmp_path, pooling), atol=1e-5)


def test_the_task_s_adapter_is_applied(tmp_path: Path) -> None:
    write_jina(tmp_path)
    _add_adapter(tmp_path, "text_matching")
    settings = EmbedConfig(encoder=str(tmp_path), pooling="mean", adapter="text_matching")
    found = Encoder(settings, device="cpu").encode(TEXTS, batch_size=2)
    np.testing.assert_allclose(found, _expected(tmp_path, "mean", "text_matching"), atol=1e-5)
    assert np.abs(found - _expected(tmp_path, "mean")).max() > 0.01


def test_an_adapter_that_is_missing_is_named(tmp_path: Path) -> None:
    write_jina(tmp_path)
    with pytest.raises(ModelError, match=r"embed\.adapter"):
        Encoder(EmbedConfig(encoder=str(tmp_path), pooling="mean", adapter="text_matching"), device="cpu")
