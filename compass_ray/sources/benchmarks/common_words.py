"""OneRuler's most common words: a long list of words, of which ten occur more often than the others (COMPASS, section 4.1).

Key property: words come from the authors' dictionary of the language; equal seeds and tokenizers give equal prompts. Unlike the
authors' text, the list is one line.
"""

from __future__ import annotations

import csv
import io
import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError
from compass_ray.core.seeds import generator
from compass_ray.languages import get_language

_COMMON = 10
_TOKENS_PER_ENTRY = 2
"""Tokens of a word with its number, at least."""
_FULL = 0.9
"""Share of its tokens that a list has at least."""


@dataclass(frozen=True)
class WordFrequencies:
    """How often each common word and each other word occurs."""

    common: int
    other: int


WORD_TASKS: Mapping[str, WordFrequencies] = {
    "common_words_easy": WordFrequencies(common=30, other=3),
    "common_words_hard": WordFrequencies(common=20, other=10),
}


def common_word_items(
    folder: Path, language: str, *, task: str, tokens: int, items: int, seed: int, count: Callable[[str], int]
) -> pa.Table:
    """Items (schemas.OPEN_ITEMS) whose lists have as many words as fit; arguments are those of `oneruler.needle_items`.

    Raises:
        ConfigError: the language has no prompt, or too few words for a list of ``tokens``, whose greatest length is named; or
            ``tokens`` are too few for a list.
    """
    template, words = _read_template(folder, language), _read_dictionary(folder, language)
    rows = []
    most = _COMMON + tokens // (_TOKENS_PER_ENTRY * WORD_TASKS[task].other)
    for number in range(items):
        rng = generator(seed, "oneruler", language, task, number)
        chosen = [words[i] for i in rng.permutation(len(words))[:most]]
        question = _longest_list(template, chosen, task, rng, tokens, count)
        rows.append(
            {
                "item_id": content_hash("oneruler", language, task, str(tokens), str(seed), str(number)),
                "language": language,
                "subject": f"{task}_{tokens}",
                "question": question,
                "answers": chosen[:_COMMON],
                "metric": "words",
                "depths": [],
            }
        )
    return pa.Table.from_pylist(rows, schemas.OPEN_ITEMS)


def _read_template(folder: Path, language: str) -> str:
    path = folder / "prompt" / language / "cwe.txt"
    if not path.is_file():
        raise ConfigError(f"{folder}: no prompt of common words in {language!r}")
    return path.read_text("utf-8")


def _read_dictionary(folder: Path, language: str) -> list[str]:
    name = get_language(language).name
    found = sorted((folder / "vocab" / "dictionaries" / name).glob(f"{name}.csv*"))
    if not found:
        raise ConfigError(f"{folder}: no dictionary of {name}")
    data = lzma.decompress(found[0].read_bytes()) if found[0].suffix == ".xz" else found[0].read_bytes()
    rows = csv.DictReader(io.StringIO(data.decode("utf-8")))
    words = (row["words"].strip() for row in rows)
    return list(dict.fromkeys(word for word in words if word))


def _longest_list(
    template: str,
    words: list[str],
    task: str,
    rng: np.random.Generator,
    tokens: int,
    count: Callable[[str], int],
) -> str:
    """The prompt with the most other words that fits, by bisection."""
    seed = int(rng.integers(2**32))

    def fill(others: int) -> str:
        return template.replace("{context}", _shuffled_list(words[: _COMMON + others], WORD_TASKS[task], seed))

    low, high = 0, len(words) - _COMMON
    if count(fill(low)) > tokens:
        raise ConfigError(f"{tokens} tokens are too few for a list of words; give more, such as 8192")
    longest = count(fill(high))
    if longest < _FULL * tokens:
        raise ConfigError(
            f"the dictionary has {len(words)} words, which are too few for a list of {tokens} tokens in {task}; give {longest} "
            f"tokens at most in evaluate.long_context.tokens, or leave {task} out of evaluate.long_context.tasks"
        )
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(fill(middle)) <= tokens else (low, middle - 1)
    return fill(low)


def _shuffled_list(words: list[str], frequencies: WordFrequencies, seed: int) -> str:
    repeated = [word for word in words[:_COMMON] for _ in range(frequencies.common)]
    repeated += [word for word in words[_COMMON:] for _ in range(frequencies.other)]
    order = generator(seed, "order").permutation(len(repeated))
    return " ".join(f"{number}. {repeated[index]}" for number, index in enumerate(order, start=1))
