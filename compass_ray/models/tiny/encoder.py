"""A small multilingual sentence encoder, trained on aligned facts of the atlas.

Prompts about the same subject have similar embeddings in all languages. An ordinary sentence-transformers directory with one
static embedding per token, averaged. It knows only the words of the atlas.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 8_000
DIMENSION = 96
EPOCHS, BATCH, RATE, MARGIN = 10, 256, 0.05, 0.5


def build_encoder(directory: Path, pool: pa.Table, *, seed: int) -> None:
    """Train on the prompts of a pool with the columns ``prompt`` and ``subject``, and save.

    Training pulls prompts of one subject together, in all languages, and pushes those of different subjects apart.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(seed)
    prompts, subjects = pool["prompt"].to_pylist(), pool["subject"].to_pylist()
    model = SentenceTransformer(modules=[StaticEmbedding(train_tokenizer(prompts), embedding_dim=DIMENSION)], device="cpu")
    number = {subject: i for i, subject in enumerate(sorted(set(subjects)))}
    rows = Dataset.from_dict({"sentence": prompts, "label": [number[s] for s in subjects]})
    with tempfile.TemporaryDirectory() as scratch:
        _train(model, rows, scratch, seed)
    model.half().save_pretrained(str(directory), create_model_card=False)


def _train(model: Any, rows: Any, scratch: str, seed: int) -> None:
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss, BatchHardTripletLossDistanceFunction

    arguments = SentenceTransformerTrainingArguments(
        output_dir=scratch,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        warmup_steps=0.1,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    loss = BatchAllTripletLoss(model, BatchHardTripletLossDistanceFunction.cosine_distance, MARGIN)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()


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
