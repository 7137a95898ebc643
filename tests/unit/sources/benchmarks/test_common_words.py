"""Lists of common words: as long as allowed, with the right frequencies, equal for equal seeds."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from compass_ray import schemas
from compass_ray.config import ConfigError
from compass_ray.sources.benchmarks.answer_metrics import score_answer
from compass_ray.sources.benchmarks.common_words import WORD_TASKS, common_word_items


def count(text: str) -> int:
    return len(text.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompt/en").mkdir(parents=True)
    (tmp_path / "prompt/en/cwe.txt").write_text("List:\n<List> {context} </List>\nWhich are common?", "utf-8")
    (tmp_path / "vocab/dictionaries/English").mkdir(parents=True)
    words = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(300)]
    text = "\n".join(["words,pos", *(f"{word},noun" for word in words)])
    (tmp_path / "vocab/dictionaries/English/English.csv").write_text(text, "utf-8")
    return tmp_path


def _make(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    settings = {"task": "common_words_easy", "tokens": 1500, "items": 2, "seed": 0, "count": count, **changes}
    table = common_word_items(folder, "en", **settings)
    assert table.schema == schemas.OPEN_ITEMS
    return list(table.to_pylist())


@pytest.mark.parametrize("task", WORD_TASKS)
def test_a_list_is_full_and_its_common_words_are_the_answers(folder: Path, task: str) -> None:
    frequencies = WORD_TASKS[task]
    for item in _make(folder, task=task):
        assert 1500 - 2 * frequencies.other < count(item["question"]) <= 1500
        listed = item["question"].split("<List> ")[1].split(" </List>")[0].split()[1::2]
        counts = Counter(listed)
        common = {word for word, times in counts.items() if times == frequencies.common}
        assert common == set(item["answers"])
        assert set(counts.values()) == {frequencies.common, frequencies.other}
        assert len(common) == 10


def test_seeds_decide(folder: Path) -> None:
    assert _make(folder) == _make(folder) != _make(folder, seed=1)
    assert _make(folder, items=1) == _make(folder)[:1]


def test_the_score_is_the_share_of_the_words(folder: Path) -> None:
    item = _make(folder)[0]
    assert score_answer(", ".join(item["answers"][:7]), item["answers"], item["metric"]) == pytest.approx(0.7)
    assert score_answer("wa wb", ["w"], "words") == 0.0


def test_what_cannot_be_made_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match="20 tokens are too few for a list"):
        _make(folder, tokens=20)
    with pytest.raises(ConfigError, match="no prompt of common words in 'sw'"):
        common_word_items(folder, "sw", task="common_words_easy", tokens=99, items=1, seed=0, count=count)
    (folder / "vocab/dictionaries/English/English.csv").unlink()
    with pytest.raises(ConfigError, match="no dictionary of English"):
        _make(folder)


@pytest.mark.shared_data
@pytest.mark.parametrize("language", ["sw", "zh", "fa"])
def test_the_authors_own_dictionaries(shared_data: Path, language: str) -> None:
    found = common_word_items(
        shared_data / "oneruler",
        language,
        task="common_words_hard",
        tokens=8192,
        items=1,
        seed=0,
        count=lambda text: len(text) // 3,
    )
    [item] = found.to_pylist()
    assert 8192 * 0.97 < len(item["question"]) // 3 <= 8192
    assert len(set(item["answers"])) == 10


def test_a_dictionary_that_does_not_fill_a_list_is_refused_with_the_greatest_length(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match="300 words, which are too few for a list of 4000 tokens in common_words_easy"
    ) as refused:
        _make(folder, tokens=4000)
    found = re.search(r"give (\d+) tokens at most", str(refused.value))
    assert found
    # Ten words 30 times and 290 words 3 times, with a number each; and the words of the template.
    longest = 2 * (10 * 30 + 290 * 3) + len(["List:", "<List>", "</List>", "Which", "are", "common?"])
    assert int(found[1]) == longest
    assert [count(item["question"]) for item in _make(folder, tokens=longest)] == [longest] * 2
