"""The base model of the preset `real-tiny`: the size of the atlas's, trained on plain texts and on pairs of translated sentences.

    COMPASS_SHARED_DATA=FOLDER python -m benchmarks.paper.real_tiny OUTPUT

Texts are the lines of `lm_text` and the sentences of `ntrex`, which say the same in each language. A pair of sentences is a chat:
one language asks, the other answers. No row of the pool and no test item is read. The first sentences are held out: they measure
bits per byte here, and are those of `evaluate.texts`.
"""

from __future__ import annotations

import argparse
import lzma
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compass_ray.config import load_run_config
from compass_ray.languages import LANGUAGES
from compass_ray.models.tiny.base_model import collate, new_model, train_model
from compass_ray.models.tiny.tokenizer import ASSISTANT, END, USER, save_tokenizer, train_tokenizer

DATA = "COMPASS_SHARED_DATA"
PRESET = "real-tiny"
VOCABULARY, TOKENS, BATCH, STEPS = 8_000, 64, 64, 1_200
"""Tokens of the vocabulary, most tokens of an example, examples of a step, steps."""
HELD_OUT = 500
"""Sentences of each language that no training reads, the first ones."""
_SORTED_BATCHES = 16
"""Batches that are sorted by length together, which reduces padding."""

Texts = Mapping[str, Sequence[str]]
"""By language."""


def build_from_command_line() -> None:
    """Build the base model into the folder of the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("output", type=Path, help="folder of the model; COMPASS_REAL_TINY names it for the preset")
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    folder, languages = Path(os.environ[DATA]), pretraining_languages()
    lines, sentences = (read_texts(folder / kind, languages) for kind in ("lm_text", "ntrex"))
    bits = build(arguments.output, lines, sentences, steps=arguments.steps, seed=arguments.seed)
    print("bits per byte of held-out sentences: " + ", ".join(f"{code} {value:.2f}" for code, value in bits.items()))


def pretraining_languages() -> list[str]:
    """The languages of the preset's pool that have plain texts."""
    return [code for code in load_run_config(PRESET).pool.languages or () if code in LANGUAGES]


def read_texts(folder: Path, languages: Sequence[str]) -> Texts:
    """The lines of each language that has a file `<code>.txt.xz`."""
    files = {code: folder / f"{code}.txt.xz" for code in languages}
    return {code: lzma.open(file, "rt", encoding="utf-8").read().splitlines() for code, file in files.items() if file.exists()}


def build(output: Path, lines: Texts, sentences: Texts, *, steps: int, seed: int) -> dict[str, float]:
    """Train a model and save it with its tokenizer to `output`. Return its bits per byte of held-out sentences by language."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    known = {code: sentences[code][HELD_OUT:] for code in sentences}
    tokenizer = train_tokenizer((text for texts in (lines, known) for own in texts.values() for text in own), VOCABULARY)
    model = new_model(tokenizer)
    train_model(model, _batches(make_examples(lines, known, rng), tokenizer, steps, rng), steps)
    bits = {code: bits_per_byte(model, tokenizer, sentences[code][:HELD_OUT:10]) for code in sentences}
    model.half().save_pretrained(output)
    save_tokenizer(tokenizer, output)
    return bits


def make_examples(lines: Texts, sentences: Texts, rng: np.random.Generator) -> Iterator[str]:
    """Endless examples: in turn a line, and a sentence with its translation. Languages have the same weight."""
    while True:
        yield _draw(list(lines.values())[int(rng.integers(len(lines)))], rng) + END
        a, b = rng.permutation(list(sentences))[:2].tolist()
        index = int(rng.integers(min(len(sentences[a]), len(sentences[b]))))
        yield f"{USER}{sentences[a][index]}{END}{ASSISTANT}{sentences[b][index]}{END}"


def _draw(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def _batches(examples: Iterator[str], tokenizer: Any, steps: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches in which all tokens are labels. An example that is too long loses its end."""
    for start in range(0, steps, _SORTED_BATCHES):
        pooled = [_ids(tokenizer, next(examples))[:TOKENS] for _ in range(BATCH * _SORTED_BATCHES)]
        pooled.sort(key=len)
        for first in rng.permutation(_SORTED_BATCHES)[: steps - start].tolist():
            yield collate([([], ids) for ids in pooled[first * BATCH : (first + 1) * BATCH]], tokenizer.pad_token_id)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


@torch.no_grad()
def bits_per_byte(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """Bits of all tokens of the texts but the first ones, by UTF-8 bytes of the whole texts; long texts lose their end."""
    bits = size = 0.0
    for text in texts:
        ids = torch.tensor([_ids(tokenizer, END + text)[:TOKENS]])
        bits += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1) / np.log(2)
        size += len(tokenizer.decode(ids[0, 1:]).encode())
    return bits / size


if __name__ == "__main__":
    build_from_command_line()
