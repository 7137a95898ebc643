"""Results of tasks of others: their chance level, and groups without a result of their own."""

from __future__ import annotations

from typing import Any

import pytest

from compass_ray.harness.results import build_record

SAMPLES = [{"arguments": [["a"], ["b"]], "resps": [[(-1.0, True)], [(-2.0, False)]], "doc": {}}]


def _results(name: str, **values: float) -> dict[str, Any]:
    counts = {"effective": 1}
    return {"results": {name: values}, "samples": {name: SAMPLES}, "n-samples": {name: counts}, "n-shot": {}, "truncated": 2}


@pytest.mark.parametrize(("metric", "chance"), [("acc,none", 0.5), ("mcc,none", None), ("word_perplexity,none", None)])
def test_only_accuracies_have_a_chance_level(metric: str, chance: float | None) -> None:
    record = build_record("t", "t", _results("t", **{metric: 0.75}), None, {})
    assert (record.metric, record.value, record.chance, record.truncated) == (metric, 0.75, chance, 2)


def test_a_group_without_an_aggregate_keeps_the_results_of_its_tasks() -> None:
    record = build_record("group", "group", _results("part", **{"acc,none": 0.75}), None, {})
    assert (record.metric, record.value, record.metrics) == (None, None, {"part/acc,none": 0.75})
