"""The comparison equals the same numbers computed in plain Python from the files."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean

import numpy as np
import pyarrow as pa
import pytest

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.core.bootstrap import Interval
from compass_ray.report.comparison import (
    MEAN,
    SCOPES,
    compare,
    format_points,
    includes_zero,
    table_header,
    table_rows,
    terminal_tables,
)

METHODS = ("zero_shot", "target", "random", "compass")


def right_answers(run: RunDir, method: str, language: str, *, low: bool) -> dict[str, int]:
    artifact = run.evaluation(method, language)
    subjects = set(artifact.read_json("results.json")["low_subjects"])
    return {
        row["item_id"]: int(row["answer"] == row["predicted"])
        for row in artifact.read_table("items.parquet").to_pylist()
        if not low or row["subject"] in subjects
    }


@pytest.mark.parametrize("scope", list(SCOPES))
def test_accuracies_are_those_of_the_items(run: RunDir, config: RunConfig, scope: str) -> None:
    comparison = compare(run, config)
    rows = {row.language: row for row in comparison.rows if row.scope == scope}
    assert list(rows) == [*config.languages, MEAN]
    for method in METHODS:
        expected = {}
        for code in config.languages:
            answers = right_answers(run, method, code, low=scope == "low")
            expected[code] = mean(answers.values())
            assert rows[code].items == len(answers)
            assert rows[code].accuracy_of(method) == pytest.approx(expected[code])
        assert rows[MEAN].accuracy_of(method) == pytest.approx(mean(expected.values()))


def test_chance_is_that_of_the_options_of_the_items(run: RunDir, config: RunConfig) -> None:
    rows = {row.language: row for row in compare(run, config).rows if row.scope == "all"}
    expected = {}
    for code in config.languages:
        scored = run.evaluation("compass", code).read_table("items.parquet")
        expected[code] = mean(1 / sum(value > -math.inf for value in each) for each in scored["log_probs"].to_pylist())
        assert rows[code].chance == pytest.approx(expected[code])
    assert rows[MEAN].chance == pytest.approx(mean(expected.values()))
    assert 0 < rows[MEAN].chance < 1


def test_differences_are_paired_by_item(run: RunDir, config: RunConfig) -> None:
    row = next(x for x in compare(run, config).rows if x.language == "hi" and x.scope == "all")
    compass, random = (right_answers(run, method, "hi", low=False) for method in ("compass", "random"))
    difference = np.array([compass[item] - random[item] for item in sorted(compass)])
    rng = np.random.default_rng(1)
    means = rng.choice(difference, (4000, len(difference))).mean(axis=1)
    found = row.difference["random"]
    assert found.mean == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.03)


def test_the_same_run_gives_the_same_intervals(run: RunDir, config: RunConfig) -> None:
    assert compare(run, config) == compare(run, config)


def test_mean_weighs_languages_equally(run: RunDir, config: RunConfig, publish: Callable[..., None]) -> None:
    for method in METHODS:
        artifact = run.evaluation(method, "sw")
        items, results = artifact.read_table("items.parquet"), artifact.read_json("results.json")
        few = pa.array([item < "sw-0020" for item in items["item_id"].to_pylist()])
        publish(artifact, {"items.parquet": items.filter(few), "results.json": results})
    rows = {row.language: row for row in compare(run, config).rows_in("all")}
    assert rows["sw"].items == 20
    shares = [rows[code].difference["target"].mean for code in config.languages]
    assert rows[MEAN].difference["target"].mean == pytest.approx(mean(shares))


def test_items_that_a_method_did_not_answer_are_excluded_and_counted(
    run: RunDir, config: RunConfig, publish: Callable[..., None]
) -> None:
    artifact = run.evaluation("target", "ar")
    items, results = artifact.read_table("items.parquet"), artifact.read_json("results.json")
    publish(artifact, {"items.parquet": items.slice(5), "results.json": results})
    comparison = compare(run, config)
    assert next(x for x in comparison.rows_in("all") if x.language == "ar").items == len(items) - 5
    assert comparison.missing == ("5 items excluded, because not every method answered them: Arabic (ar).",)


def test_missing_evaluations_are_named(run: RunDir, config: RunConfig) -> None:
    run.evaluation("random", "hi").remove()
    for method in METHODS:
        run.evaluation(method, "am").remove()
    comparison = compare(run, config)
    assert comparison.missing == ("No evaluation of random: Hindi (hi).", "No evaluation: Amharic (am).")
    hindi = next(x for x in comparison.rows_in("low") if x.language == "hi")
    assert hindi.accuracy_of("random") is None
    assert set(hindi.difference) == {"target"}
    row, columns = next(row for row in table_rows(comparison) if row[0] == "Hindi (hi)"), table_header(comparison)
    assert row[columns.index("random")] == row[columns.index("COMPASS minus random")] == "–"


def test_mean_is_over_languages_with_every_method(run: RunDir, config: RunConfig) -> None:
    run.evaluation("random", "hi").remove()
    found = compare(run, config).mean_row("all")
    assert found is not None
    assert found.languages == 3
    assert set(found.accuracy) == set(METHODS)


def test_an_unfinished_evaluation_counts_as_missing(run: RunDir, config: RunConfig) -> None:
    run.evaluation("random", "hi").begin(Identity("evaluate", {}, {}))
    assert compare(run, config).missing == ("No evaluation of random: Hindi (hi).",)


def test_an_empty_run_has_no_rows_and_a_note(empty: RunDir, config: RunConfig) -> None:
    comparison = compare(empty, config)
    assert comparison.rows == ()
    assert table_rows(comparison) == []
    assert comparison.missing == ("No method has been evaluated in any language.",)


def test_rows_have_one_cell_per_column(run: RunDir, config: RunConfig) -> None:
    comparison = compare(run, config)
    rows = table_rows(comparison, "all")
    assert {len(row) for row in rows} == {len(table_header(comparison))}
    assert [row[0] for row in rows] == [
        "Swahili (sw)",
        "Hindi (hi)",
        "Arabic (ar)",
        "Amharic (am)",
        "mean of 4",
    ]


def test_tables_put_the_under_represented_subjects_first(run: RunDir, config: RunConfig) -> None:
    (first, rows), (second, _) = terminal_tables(compare(run, config))
    assert (first, second) == (
        "Accuracy on under-represented subjects, percent",
        "Accuracy on all subjects, percent",
    )
    comparison = compare(run, config)
    assert rows == [table_header(comparison), *table_rows(comparison, "low")]


def test_a_baseline_has_its_columns_where_it_was_evaluated(run: RunDir, config: RunConfig, publish: Callable[..., None]) -> None:
    assert "DSIR" not in table_header(compare(run, config))
    for code in config.languages:
        artifact = run.evaluation("random", code)
        copied = {"items.parquet": artifact.read_table("items.parquet"), "results.json": artifact.read_json("results.json")}
        publish(run.evaluation("dsir", code), copied)
    comparison = compare(run, config)
    columns = table_header(comparison)
    for row in table_rows(comparison):
        assert row[columns.index("DSIR")] == row[columns.index("random")]
    same = next(row for row in comparison.rows if row.language == "hi").difference
    assert same["dsir"].mean == same["random"].mean
    accuracy, differences, *_ = (rows for _, rows in terminal_tables(comparison))
    assert accuracy[0] == ("language", "chance", "zero-shot", "target", "random", "DSIR", "COMPASS", "items")
    assert differences[0] == ("language", "target", "random", "DSIR")
    assert [(*a, *d[1:]) for a, d in zip(accuracy[1:], differences[1:], strict=True)] == table_rows(comparison)


def test_only_configured_methods_are_reported_as_missing(run: RunDir) -> None:
    def missing(*methods: str) -> tuple[str, ...]:
        return compare(run, RunConfig(languages=("sw",), select={"methods": methods}, evaluate={"resamples": 50})).missing

    assert missing("compass") == ()
    assert missing("compass", "nearest") == ("No evaluation of nearest: Swahili (sw).",)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.1, 0.2, True), (0.0, 0.2, True), (0.01, 0.2, False), (-0.2, -0.1, False)],
)
def test_interval_includes_zero(low: float, high: float, expected: bool) -> None:
    assert includes_zero(Interval(0.0, low, high)) is expected


def test_points_show_signs_and_no_negative_zero() -> None:
    assert format_points(Interval(0.04, -0.0001, 0.125)) == "+4.0 [0.0, +12.5]"
    assert format_points(Interval(-0.04, -0.1, -0.01)) == "−4.0 [−10.0, −1.0]"
