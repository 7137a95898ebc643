"""Needles in a haystack: as long as asked, each needle once and in the text, equal for equal seeds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from compass_ray import schemas
from compass_ray.config import ConfigError
from compass_ray.sources.benchmarks.answer_metrics import score_answer
from compass_ray.sources.benchmarks.oneruler import TASKS, needle_items

PARTS = {
    "task": "Memorize {this}.\n<text>\n{context}\n</text>\n",
    "needle_numbers": 'The special magic number for "{key}" is: {value} ',
    "question_single_numbers": 'Which for "{query1}"?',
    "question_multi_numbers": 'Which for "{query1}" and "{query2}"?',
    "please_list": "List all.",
    "if_no_numbers": 'Else "none".\n',
    "answer_prefix": "Answer:",
    "answer_numbers": "<Answer> here </Answer>",
    "none": "none",
}
NOUNS = ["apple ", "river", "cloud", "stone", "bread", "horse"]


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("prompt/en", "books/en", "vocab"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "prompt/en/niah.txt").write_text(json.dumps(PARTS), "utf-8")
    (tmp_path / "books/en/book.txt").write_text(" ".join(f"Sentence {n} says so." for n in range(30)), "utf-8")
    lines = ["en\tdefinition\tsw", *(f"{noun}\tsomething\tx" for noun in NOUNS)]
    (tmp_path / "vocab/100_noun_list_translated.tsv").write_text("\n".join(lines), "utf-8")
    return tmp_path


def _make(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    settings: dict[str, Any] = {"task": "single", "tokens": 300, "items": 3, "seed": 0, "count": words, **changes}
    table = needle_items(folder, "en", **settings)
    assert table.schema == schemas.OPEN_ITEMS
    return list(table.to_pylist())


@pytest.mark.parametrize("tokens", [120, 300, 2000])
@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_is_full_and_within_its_bound(folder: Path, task: str, tokens: int) -> None:
    for item in _make(folder, task=task, tokens=tokens):
        assert tokens - 8 < words(item["question"]) <= tokens


@pytest.mark.parametrize("task", TASKS)
def test_each_needle_stands_in_the_text_once_and_the_right_ones_are_asked_for(folder: Path, task: str) -> None:
    shape = TASKS[task]
    for item in _make(folder, task=task):
        hidden = re.findall(r'magic number for "(\w+)" is: (\d{7})\.', item["question"])
        asked = re.findall(r'"(\w+)"', item["question"].split("</text>")[1].split("List all")[0])
        assert len(hidden) == shape.keys * shape.values
        assert len({key for key, _ in hidden}) == shape.keys
        assert len(asked) == shape.queries
        expected = {value for key, value in hidden if key in asked}
        assert set(item["answers"]) == (expected if shape.present else {"none"})
        assert bool(expected) == shape.present
        assert score_answer(" ".join(item["answers"]), item["answers"], item["metric"]) == 1.0


def test_seeds_and_numbers_decide_and_nothing_else(folder: Path) -> None:
    assert _make(folder) == _make(folder)
    assert _make(folder, items=1) == _make(folder)[:1]
    assert _make(folder, seed=1) != _make(folder)
    assert len({item["question"] for item in _make(folder)}) == 3


def test_braces_of_a_book_are_text(folder: Path) -> None:
    (folder / "books/en/book.txt").write_text("A {brace} and {context} here. " * 40, "utf-8")
    assert "A {brace} and {context} here." in _make(folder)[0]["question"]


def test_needles_lie_at_any_depth(folder: Path) -> None:
    found = [item["question"].index("magic number") / len(item["question"]) for item in _make(folder, items=40)]
    assert min(found) < 0.2
    assert max(found) > 0.7


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "cwe"}, "OneRuler has no task 'cwe'; it has single, multi_key"),
        ({"tokens": 20}, "20 tokens are too few for a book in 'en'"),
    ],
)
def test_what_cannot_be_made_is_said(folder: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        _make(folder, **changes)


def test_a_language_without_a_book_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no prompt or no book in 'sw'; books exist in en"):
        needle_items(folder, "sw", task="single", tokens=300, items=1, seed=0, count=words)


@pytest.mark.shared_data
@pytest.mark.parametrize("language", ["en", "fa", "it", "ja", "sw", "uk", "vi", "zh"])
def test_the_authors_own_files_make_prompts_of_8k(shared_data: Path, language: str) -> None:
    made = needle_items(
        shared_data / "oneruler", language, task="multi_key", tokens=8192, items=1, seed=0, count=lambda text: len(text) // 2
    )
    [item] = made.to_pylist()
    assert 8192 * 0.97 < len(item["question"]) // 2 <= 8192
    assert item["answers"][0] in item["question"]
