"""The suite of the paper: its tables agree with one another, except where an entry names the disagreement."""

from __future__ import annotations

import pytest

from compass_ray.config import list_presets
from compass_ray.evaluation.suites import Suite, SuiteEntry, load_suite

ROUNDING = 0.06
"""Printed means have one digit."""
BY_LANGUAGE = {
    "table-5": "Phi-4-mini, Global-MMLU",
    "table-6": "Llama 3.1 8B, Global-MMLU",
    "table-7": "Qwen2.5 7B, Global-MMLU",
    "table-8": "Phi-4-mini, MMLU-ProX",
    "table-9": "Llama 3.1 8B, MMLU-ProX",
    "table-10": "Qwen2.5 7B, MMLU-ProX",
}


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("paper")


def _values(entry: SuiteEntry, row: str) -> list[float]:
    [found] = [each.values for each in entry.rows if each.name == row]
    return [value for value in found if value is not None]


def _mean(entry: SuiteEntry, row: str) -> float:
    values = _values(entry, row)
    return sum(values) / len(values)


@pytest.mark.parametrize("name", [name for name in BY_LANGUAGE if name != "table-6"])
def test_table_1_has_the_means_of_the_tables_by_language(suite: Suite, name: str) -> None:
    summary, own = suite.entries["table-1"], suite.entries[name]
    column = [each.name for each in summary.columns].index(BY_LANGUAGE[name])
    for row in summary.rows:
        assert row.values[column] == pytest.approx(_mean(own, row.name), abs=ROUNDING), row.name


def test_the_means_of_table_6_that_differ_from_table_1_are_named(suite: Suite) -> None:
    summary, own = suite.entries["table-1"], suite.entries["table-6"]
    column = [each.name for each in summary.columns].index(BY_LANGUAGE["table-6"])
    differing = {row.name for row in summary.rows if abs((row.values[column] or 0) - _mean(own, row.name)) > ROUNDING}
    assert {"COMPASS", "COMPASS-FFT", "LangRank", "LangSim"} <= differing
    assert "COMPASS is 55.2 here and 55.5 in Table 6" in " ".join(summary.inconsistencies)
    assert "Target 50.8 and 51.1" in " ".join(own.inconsistencies)
    assert _mean(own, "Target") == pytest.approx(51.1, abs=ROUNDING)


def test_rows_that_are_called_copies_are_equal(suite: Suite) -> None:
    qwen = suite.entries["table-7"]
    at = {code: qwen.languages.index(code) for code in ("ig", "ky")}
    assert "repeats that of Igbo" in " ".join(qwen.inconsistencies)
    for row in qwen.rows:
        assert (row.values[at["ig"]] == row.values[at["ky"]]) == (row.method != "zero_shot")
    phi = suite.entries["table-5"]
    for group in ("es fr", "ru sv zh", "ig ny sn", "si so yo", "cs ro", "de pt", "fa he", "ky ne", "ms tr"):
        columns = {tuple(row.values[phi.languages.index(code)] for row in phi.rows) for code in group.split()}
        assert len(columns) == 1, group


def test_table_2_has_other_figures_of_mmlu_prox_than_table_1(suite: Suite) -> None:
    first, second = suite.entries["table-1"], suite.entries["table-2"]
    assert [_values(first, "Pretrained (ZS)")[1], _values(second, "Phi-4-mini (zero-shot)")[1]] == [21.7, 27.8]
    assert [_values(first, "COMPASS")[1], _values(second, "COMPASS (HDBSCAN, COMPASS-S)")[1]] == [28.7, 33.4]
    assert "Table 2 has 27.8 and 33.4" in " ".join(first.inconsistencies)


def test_counts_of_best_budgets_are_of_42_languages_at_most(suite: Suite) -> None:
    counts = [row.values[0] or 0 for row in suite.entries["figure-3"].rows]
    assert sum(counts) + 3 <= 42


def test_every_table_and_figure_of_results_is_there(suite: Suite) -> None:
    tables = {f"table-{number}" for number in (1, 2, *range(5, 13))}
    figures = {f"figure-{number}" for number in range(2, 8)}
    assert {*suite.entries} == tables | figures | {"section-d4"}


def test_presets_exist(suite: Suite) -> None:
    named = {preset for entry in suite.entries.values() for preset in entry.presets}
    named |= {preset for entry in suite.entries.values() for column in entry.columns for preset in column.presets}
    assert named | {*suite.config.presets} <= {*list_presets()}
