"""Scores of free replies against what a person would say."""

from __future__ import annotations

import pytest

from compass_ray.sources.benchmarks.answer_metrics import score_answer


@pytest.mark.parametrize(
    ("reply", "answers", "metric", "expected"),
    [
        ("1234567, 7654321", ["7654321", "1234567"], "numbers", 1.0),
        ("1) 1234567", ["1234567"], "numbers", 1.0),
        ("१२३", ["123"], "numbers", 1.0),
        ("1234567", ["7654321", "1234567"], "numbers", 0.0),
        ("1234567 and 7654321 and 55", ["7654321", "1234567"], "numbers", 0.0),
        ("<Answer> None </Answer>", ["none"], "contains", 1.0),
        ("هیچ\u200cکدام", ["هیچ کدام"], "contains", 1.0),
        ("北 京市", ["北京"], "contains", 1.0),
        ("1234567", ["none"], "contains", 0.0),
    ],
)
def test_replies_are_scored(reply: str, answers: list[str], metric: str, expected: float) -> None:
    assert score_answer(reply, answers, metric) == expected


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric is 'bleu'; expected one of numbers, contains"):
        score_answer("a", ["a"], "bleu")
