"""Results of tasks of others: their chance level, and groups without a result of their own."""

from __future__ import annotations

from typing import Any

import pytest

from compass_ray.harness.results import build_items_table, build_record, chance_level
from compass_ray.records.harness import HarnessRecord

SAMPLES = [{"arguments": [["a"], ["b"]], "resps": [[(-1.0, True)], [(-2.0, False)]], "doc": {}}]
FREE = {"arguments": [["a", {}]], "resps": [["a reply"]], "doc": {}}
LOGGED = {"doc_id": 0, "doc_hash": "d", "prompt_hash": "p", "target": "x", "filtered_resps": ["x"], "filter": "none"}


def _results(name: str, **values: float) -> dict[str, Any]:
    counts = {"effective": 1}
    return {"results": {name: values}, "samples": {name: SAMPLES}, "n-samples": {name: counts}, "n-shot": {}, "truncated": 2}


@pytest.mark.parametrize(
    ("metric", "chance"), [("acc,none", 0.5), ("mcc,none", None), ("f1,none", None), ("word_perplexity,none", None)]
)
def test_only_accuracies_have_a_chance_level(metric: str, chance: float | None) -> None:
    record = build_record("t", "t", _results("t", **{metric: 0.75}), None, {})
    assert (record.metric, record.value, record.chance, record.truncated) == (metric, 0.75, chance, 2)


def test_a_group_without_an_aggregate_keeps_the_results_of_its_tasks() -> None:
    record = build_record("group", "group", _results("part", **{"acc,none": 0.75}), None, {})
    assert (record.metric, record.value, record.metrics) == (None, None, {"part/acc,none": 0.75})


def test_a_free_answer_has_no_chance_level() -> None:
    results = _results("t", **{"exact_match,none": 0.75})
    results["samples"]["t"] = [*SAMPLES, FREE]
    assert build_record("t", "t", results, None, {}).chance is None
    assert chance_level([]) is None


def test_an_accuracy_of_own_code_has_no_known_chance_level() -> None:
    results = {**_results("t", **{"acc,none": 0.75}), "configs": {"t": {"process_results": "def f(): ..."}}}
    assert build_record("t", "t", results, None, {}).chance is None


def test_options_that_are_also_scored_without_their_prompt_count_once() -> None:
    twice = {"arguments": [["a"], ["b"]] * 2, "resps": [[(-1.0, True)]] * 4, "doc": {}, "metrics": ["acc", "acc_mutual_info"]}
    assert chance_level([twice]) == 0.5


def test_a_group_without_an_aggregate_is_shown_by_its_tasks() -> None:
    metrics = {"a/acc,none": 0.75, "a/acc_stderr,none": 0.1, "a/acc_norm,none": 0.5, "b/word_perplexity,none": 12.0}
    record = HarnessRecord(task="group", metrics=metrics)
    assert [(each.task, each.metric, each.value, each.stderr) for each in record.parts] == [
        ("group/a", "acc,none", 0.75, 0.1),
        ("group/b", "word_perplexity,none", 12.0, None),
    ]
    with_value = HarnessRecord(task="group", metric="acc,none", value=0.5, metrics=metrics)
    assert with_value.parts == (with_value,)


def test_items_of_a_group_without_an_aggregate_have_the_first_metric_of_their_task() -> None:
    samples = {
        "b": [{**FREE, **LOGGED, "metrics": ["exact_match", "f1"], "exact_match": 1.0, "f1": 0.5}],
        "a": [
            {**SAMPLES[0], **LOGGED, "metrics": ["acc"], "acc": 0.0},
            {**SAMPLES[0], **LOGGED, "filter": "other", "metrics": ["acc"]},
        ],
    }
    rows = build_items_table(samples, None).to_pylist()
    assert [(row["task"], row["value"], row["reply"]) for row in rows] == [("a", 0.0, None), ("b", 1.0, "x")]


@pytest.mark.parametrize(
    ("metric", "value", "is_share"),
    [
        ("acc_norm,none", 0.5, True),
        ("exact_match,flexible-extract", 1.0, True),
        ("f1,none", 0.5, True),
        ("f1,none", 55.0, False),
        ("mcc,none", 0.5, False),
        ("word_perplexity,none", 0.5, False),
        ("emotion,none", 0.5, False),
        ("acc,none", None, False),
    ],
)
def test_shares(metric: str, value: float | None, is_share: bool) -> None:
    assert HarnessRecord(task="a", metric=metric, value=value).is_share == is_share
