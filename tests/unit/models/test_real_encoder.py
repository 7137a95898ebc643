"""Real encoders: multilingual-e5-small against sentence-transformers, and the states of Gemma 3 270M against transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from compass_ray.config import EmbedConfig
from compass_ray.models.encoder import Encoder

pytestmark = [pytest.mark.real_models, pytest.mark.slow]

PREFIX = "query: "
TEXTS = [
    "Mji mkuu wa Kenya ni upi?",
    "肯尼亚的首都叫什么名字？",
    "ما هي عاصمة كينيا؟",
    "Wie heißt die Hauptstadt von Kenia, und wie viele Menschen leben dort?",
    "Nairobi " * 700,
]
"""Four scripts, and a text above the limit of 512 tokens."""


@pytest.fixture(scope="module")
def expected(real_models: Path) -> npt.NDArray[np.float32]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(real_models / "e5-small"), device="cpu")
    return np.asarray(model.encode(TEXTS, prompt=PREFIX, normalize_embeddings=True), np.float32)


def _cosine(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    return float((found * expected).sum(axis=1).min())


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999999), ("bfloat16", 0.9995)])
@pytest.mark.parametrize("tokens", [64, 4096])
def test_vectors_are_those_of_sentence_transformers(
    real_models: Path, expected: npt.NDArray[np.float32], dtype: str, least: float, tokens: int
) -> None:
    config = EmbedConfig.model_validate({"encoder": str(real_models / "e5-small"), "prompt_prefix": PREFIX, "dtype": dtype})
    assert _cosine(Encoder(config, device="cpu").encode(TEXTS, batch_size=256, batch_tokens=tokens), expected) > least


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_a_directory_without_modules_takes_the_mean(
    real_models: Path, expected: npt.NDArray[np.float32], tmp_path: Path, pooling: str | None
) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(real_models / "e5-small" / name)
    settings = {"encoder": str(tmp_path), "prompt_prefix": PREFIX, "dtype": "float32", "pooling": pooling}
    found = Encoder(EmbedConfig.model_validate(settings), device="cpu").encode(TEXTS, batch_size=256)
    assert _cosine(found, expected) > 0.9999


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999999), ("bfloat16", 0.995)])
def test_states_of_gemma_weighted_by_position_are_those_of_transformers(real_models: Path, dtype: str, least: float) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, texts = str(real_models / "gemma-3-270m"), TEXTS[:4]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = []
    for text in texts:
        with torch.inference_mode():
            [states] = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[-1]
        row = (torch.arange(1, len(states) + 1)[:, None] * states).sum(0)
        rows.append((row / row.norm()).numpy())
    config = EmbedConfig.model_validate({"encoder": folder, "pooling": "weightedmean", "dtype": dtype})
    assert _cosine(Encoder(config, device="cpu").encode(texts, batch_size=4), np.stack(rows)) > least
