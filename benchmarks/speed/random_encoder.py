"""A sentence encoder with a real architecture, random weights and its own vocabulary.

It is as fast as a trained encoder of that shape; its vectors are meaningless.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from compass_ray.sources.atlas import FULL, SMALL, AtlasSize, atlas_pool


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT, and the source of its vocabulary."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    text: AtlasSize


MINILM = Shape(layers=6, hidden=384, heads=12, intermediate=1536, vocabulary=30_522, text=FULL)
TINY = Shape(layers=1, hidden=32, heads=2, intermediate=64, vocabulary=2_000, text=SMALL)


def random_encoder(folder: Path, shape: Shape, *, seed: int) -> Path:
    """Write a sentence-transformers directory: WordPiece, BERT, mean pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    bert = folder.with_name("bert")
    _write_tokenizer(bert, shape)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
    )
    BertModel(config).save_pretrained(bert)
    SentenceTransformer(modules=[Transformer(str(bert)), Pooling(shape.hidden, "mean")], device="cpu").save(str(folder))
    return folder


def _write_tokenizer(folder: Path, shape: Shape) -> None:
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(atlas_pool(shape.text)["inputs"].to_pylist(), shape.vocabulary, show_progress=False)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, model_max_length=512, **special).save_pretrained(folder)
