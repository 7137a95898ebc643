"""The tiny base models of `tests.unit.tiny_models`."""

from tests.unit.tiny_models import architecture, base, make_base, tokenizer, train_config

__all__ = ["architecture", "base", "make_base", "tokenizer", "train_config"]
