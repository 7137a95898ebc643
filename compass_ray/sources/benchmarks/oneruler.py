"""OneRuler's needles in a haystack: numbers hidden in a book, asked for at the end of a long prompt (COMPASS, section 4.1).

Key property: prompts are generated from the authors' templates, nouns and books; equal seeds and tokenizers give equal
prompts. `common_words` has the two tasks with lists of words. The authors' folder is needed (`books`, `prompt`, `vocab`).
"""

from __future__ import annotations

import csv
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError
from compass_ray.core.seeds import generator


@dataclass(frozen=True)
class NeedleTask:
    """Number of nouns with numbers, numbers per noun, nouns in the question, and whether these nouns are in the text."""

    keys: int
    values: int = 1
    queries: int = 1
    present: bool = True


TASKS: Mapping[str, NeedleTask] = {
    "single": NeedleTask(keys=1),
    "multi_key": NeedleTask(keys=4),
    "multi_value": NeedleTask(keys=1, values=4),
    "multi_query": NeedleTask(keys=2, queries=2),
    "none": NeedleTask(keys=4, present=False),
}
_DEPTHS = 40
_FULL_STOP: Mapping[str, str] = {"zh": "。", "ja": "。", "fa": "۔"}
_UNSPACED = ("zh", "ja")
_SENTENCE = re.compile(r"(?<=[.?!])\s+|(?<=[。？！।۔؟])\s*")


@dataclass(frozen=True)
class _HaystackMaterial:
    """Material of one language: prompt parts, nouns, and sentences of its books."""

    language: str
    parts: Mapping[str, str]
    nouns: list[str]
    sentences: list[str]


@dataclass(frozen=True)
class _NeedleQuiz:
    needles: list[str]
    queries: list[str]
    answers: list[str]


@dataclass(frozen=True)
class _FilledPrompt:
    text: str
    depths: list[float]


def needle_items(
    folder: str | Path, language: str, *, task: str, tokens: int, items: int, seed: int, count: Callable[[str], int]
) -> pa.Table:
    """Items (schemas.OPEN_ITEMS) whose prompts contain as much of the books as fits.

    Args:
        folder: the authors' data folder; books may be compressed (``.txt.xz``).
        language: code of one of OneRuler's languages.
        task: one of `TASKS`.
        tokens: maximum tokens of a prompt, such as 8192; short books are repeated.
        items: number of prompts.
        seed: seed of nouns, numbers and depths.
        count: counts the tokens of a text with the tokenizer of the model.

    Raises:
        ConfigError: an unknown task, a language without prompt, nouns or books, or too few tokens for a book.
    """
    if task not in TASKS:
        raise ConfigError(f"OneRuler has no task {task!r}; it has {', '.join(TASKS)}")
    material = _load_material(Path(folder), language)
    sizes = [count(sentence) for sentence in material.sentences]
    rows = []
    for number in range(items):
        rng = generator(seed, "oneruler", language, task, number)
        quiz = _make_quiz(material, TASKS[task], rng)
        prompt = _build_prompt(material, quiz, rng, tokens, sizes, count)
        rows.append(
            {
                "item_id": content_hash("oneruler", language, task, str(tokens), str(seed), str(number)),
                "language": language,
                "subject": f"{task}_{tokens}",
                "question": prompt.text,
                "answers": quiz.answers,
                "metric": "numbers" if TASKS[task].present else "contains",
                "depths": prompt.depths,
            }
        )
    return pa.Table.from_pylist(rows, schemas.OPEN_ITEMS)


def _load_material(folder: Path, language: str) -> _HaystackMaterial:
    prompt = folder / "prompt" / language / "niah.txt"
    books = sorted(p for p in (folder / "books" / language).glob("*") if p.name.endswith((".txt", ".txt.xz")))
    if not prompt.is_file() or not books:
        there = sorted({p.parent.name for p in (folder / "books").glob("*/*")})
        raise ConfigError(f"{folder}: no prompt or no book in {language!r}; books exist in {', '.join(there) or 'no language'}")
    with (folder / "vocab" / "100_noun_list_translated.tsv").open(encoding="utf-8", newline="") as file:
        nouns = [row[language].strip() for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    text = " ".join(" ".join(map(_read_book, books)).split())
    sentences = [sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip()]
    return _HaystackMaterial(language, json.loads(prompt.read_text("utf-8")), list(dict.fromkeys(filter(None, nouns))), sentences)


def _read_book(book: Path) -> str:
    return lzma.decompress(book.read_bytes()).decode("utf-8") if book.suffix == ".xz" else book.read_text("utf-8")


def _make_quiz(material: _HaystackMaterial, task: NeedleTask, rng: np.random.Generator) -> _NeedleQuiz:
    """Draw nouns with numbers, in random order, and the nouns of the question."""
    chosen = [material.nouns[i] for i in rng.permutation(len(material.nouns))[: task.keys + 1]]
    keys, other = chosen[: task.keys], chosen[task.keys]
    numbers = {key: [str(rng.integers(10**6, 10**7)) for _ in range(task.values)] for key in keys}
    stop = _FULL_STOP.get(material.language, ".")
    written = [(key, value) for key in keys for value in numbers[key]]
    needles = [material.parts["needle_numbers"].format(key=key, value=value).rstrip() + stop for key, value in written]
    queries = keys[: task.queries] if task.present else [other]
    answers = [value for key in queries for value in numbers[key]] if task.present else [material.parts["none"]]
    return _NeedleQuiz([needles[i] for i in rng.permutation(len(needles))], queries, answers)


def _build_prompt(
    material: _HaystackMaterial,
    quiz: _NeedleQuiz,
    rng: np.random.Generator,
    tokens: int,
    sizes: list[int],
    count: Callable[[str], int],
) -> _FilledPrompt:
    """The longest prompt within the limit, with needles at random depths between sentences of the books."""
    depths = np.sort(rng.choice(np.linspace(0.0, 1.0, _DEPTHS), len(quiz.needles), replace=False))
    kept = _count_fitting(sizes, tokens - count(_fill_prompt(material, quiz, " ".join(quiz.needles))))
    while kept > 0:
        prompt = _fill_prompt(material, quiz, _haystack(material, quiz, depths, kept))
        over = count(prompt) - tokens
        if over <= 0:
            return _FilledPrompt(prompt, [float(depth) for depth in depths])
        kept -= max(1, over // max(sizes))
    raise ConfigError(f"{tokens} tokens are too few for a book in {material.language!r}; give more, such as 8192")


def _count_fitting(sizes: list[int], room: int) -> int:
    """Number of sentences that fit; the books are repeated if needed."""
    rounds, rest = divmod(max(room, 0), sum(sizes))
    return rounds * len(sizes) + int(np.searchsorted(np.cumsum(sizes), rest, side="right"))


def _haystack(material: _HaystackMaterial, quiz: _NeedleQuiz, depths: np.ndarray, kept: int) -> str:
    return ("" if material.language in _UNSPACED else " ").join(_interleave(material, quiz, depths, kept))


def _interleave(material: _HaystackMaterial, quiz: _NeedleQuiz, depths: np.ndarray, kept: int) -> Iterator[str]:
    indices = [int(depth * kept) for depth in depths]
    for position in range(kept + 1):
        yield from (needle for index, needle in zip(indices, quiz.needles, strict=True) if index == position)
        if position < kept:
            yield material.sentences[position % len(material.sentences)]


def _fill_prompt(material: _HaystackMaterial, quiz: _NeedleQuiz, context: str) -> str:
    parts, space = material.parts, "" if material.language in _UNSPACED else " "
    template = "question_single_numbers" if len(quiz.queries) == 1 else "question_multi_numbers"
    queries = {f"query{n}": query for n, query in enumerate(quiz.queries, start=1)}
    question = space.join([parts[template].format(**queries), parts["please_list"], parts["if_no_numbers"]])
    return parts["task"].replace("{context}", context) + question + space.join([parts["answer_prefix"], parts["answer_numbers"]])
