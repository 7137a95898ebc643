"""A small multilingual sentence encoder, trained on aligned facts of the atlas.

Key property: prompts that ask of the same subject in different languages lie together. An ordinary sentence-transformers
directory: a static embedding a token, averaged. It knows the atlas's words and no others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from compass_ray.core.seeding import generator

VOCABULARY = 8_000
DIMENSION = 96
PAIRS = 120_000


def build_encoder(directory: Path, pool: pa.Table, *, seed: int) -> None:
    """Train on the prompts of a pool with the columns ``prompt`` and ``subject``, and save.

    Each prompt is drawn towards one of its subject in the pool, most often of another language, and away from the rest.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(pool["prompt"].to_pylist())
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=DIMENSION)], device="cpu")
    pairs = Dataset.from_list([{"anchor": a, "positive": b} for a, b in _pairs(pool, generator(seed, "encoder"))])
    with tempfile.TemporaryDirectory() as scratch:
        _train(model, pairs, scratch, seed)
    model.half().save_pretrained(str(directory), create_model_card=False)


def _train(model: Any, pairs: Any, scratch: str, seed: int) -> None:
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    arguments = SentenceTransformerTrainingArguments(
        output_dir=scratch,
        num_train_epochs=1,
        per_device_train_batch_size=512,
        learning_rate=0.2,
        warmup_steps=0.1,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    loss = MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=pairs, loss=loss).train()


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer, which can spell any script."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=["[PAD]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _pairs(pool: pa.Table, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    prompts, subjects = pool["prompt"].to_pylist(), pool["subject"].to_pylist()
    groups: dict[str, list[int]] = {}
    for row, subject in enumerate(subjects):
        groups.setdefault(subject, []).append(row)
    for row in rng.integers(len(prompts), size=PAIRS):
        group = groups[subjects[row]]
        yield prompts[row], prompts[group[int(rng.integers(len(group)))]]
