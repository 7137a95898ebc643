"""Marks of free replies against what a person would say, and against the plain formula of word overlap."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.sources.benchmarks.marking import mark, number_of

WORDS = st.lists(st.sampled_from(["nairobi", "mombasa", "ni", "mji"]), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("It is 1,234.50 dollars.", "1234.5"),
        ("1.234.567,5", "1234567.5"),
        ("1,234,567", "1234567"),
        ("2,5", "2.5"),
        ("3.125", "3.125"),
        ("007", "7"),
        ("१२३", "123"),
        ("٤٢", "42"),
        ("๕๐ บาท", "50"),
        ("-3", "-3"),
        ("10-20", "20"),
        ("first 3, then 4.", "4"),
        ("18.0", "18"),
        ("0", "0"),
        ("none at all", None),
    ],
)
def test_the_last_number_is_read_in_any_digits(text: str, number: str | None) -> None:
    assert number_of(text) == number


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_itself_however_it_is_grouped(number: int) -> None:
    assert number_of(str(number)) == number_of(f"{number:,}") == number_of(f"is {number}.") == str(number)


@pytest.mark.parametrize(
    ("reply", "answers", "metric", "expected"),
    [
        ("So 7 eggs.", ["7"], "number", 1.0),
        ("So 7 eggs of 9", ["7"], "number", 0.0),
        ("no idea", ["7"], "number", 0.0),
        ("1234567, 7654321", ["7654321", "1234567"], "numbers", 1.0),
        ("1) 1234567", ["1234567"], "numbers", 1.0),
        ("1234567", ["7654321", "1234567"], "numbers", 0.0),
        ("1234567 and 7654321 and 55", ["7654321", "1234567"], "numbers", 0.0),
        ("  NAIROBI! ", ["Mombasa", "nairobi"], "match", 1.0),
        ("Nairobi city", ["nairobi"], "match", 0.0),
        ("<Answer> None </Answer>", ["none"], "contains", 1.0),
        ("هیچ\u200cکدام", ["هیچ کدام"], "contains", 1.0),
        ("1234567", ["none"], "contains", 0.0),
        ("北京市", ["北京"], "f1", 0.8),
        ("", ["x"], "f1", 0.0),
    ],
)
def test_marks(reply: str, answers: list[str], metric: str, expected: float) -> None:
    assert mark(reply, answers, metric) == pytest.approx(expected)


@given(WORDS, WORDS)
def test_word_overlap_is_the_harmonic_mean_of_precision_and_recall(given_words: list[str], wanted: list[str]) -> None:
    both = sum(min(given_words.count(word), wanted.count(word)) for word in {*wanted})
    precision, recall = both / len(given_words), both / len(wanted)
    expected = 2 * precision * recall / (precision + recall) if both else 0.0
    found = mark(" ".join(given_words), [" ".join(wanted)], "f1")
    assert found == pytest.approx(expected)
    assert (found == 1.0) == (Counter(given_words) == Counter(wanted))


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_the_best_of_the_answers_counts(reply: list[str], answers: list[list[str]]) -> None:
    texts = [" ".join(answer) for answer in answers]
    assert mark(" ".join(reply), texts, "f1") == max(mark(" ".join(reply), [text], "f1") for text in texts)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric is 'bleu'; expected one of f1, number"):
        mark("a", ["a"], "bleu")
