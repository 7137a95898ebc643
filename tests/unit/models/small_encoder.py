"""Random encoders of two layers, as directories."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from compass_ray.models.model_resolver import resolve_model

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def write_bert(folder: Path) -> None:
    """A BERT model with the tokenizer of the atlas's base model."""
    from transformers import BertConfig, BertModel

    _write(folder, BertModel, BertConfig)


def write_jina(folder: Path) -> None:
    """A model of jina-embeddings-v3's architecture."""
    from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

    _write(folder, JinaEmbeddingsV3Model, JinaEmbeddingsV3Config, type_vocab_size=1)


def write_gte(folder: Path) -> None:
    """A model of gte-multilingual's architecture."""
    from transformers import GteConfig, GteModel

    _write(folder, GteModel, GteConfig, type_vocab_size=1)


def _write(folder: Path, model: Any, config: Any, **more: Any) -> None:
    from transformers import AutoTokenizer

    tokens = len(AutoTokenizer.from_pretrained(resolve_model("atlas", "base_model")))
    torch.manual_seed(0)
    model(config(vocab_size=tokens, pad_token_id=0, **_SIZES, **more)).eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(resolve_model("atlas", "base_model")) / name, folder / name)
