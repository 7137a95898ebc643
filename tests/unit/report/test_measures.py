"""The measures of a run equal those that plain Python computes from its ``items.parquet`` files alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from statistics import mean
from typing import Any

import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.report.comparison import MEAN
from compass_ray.report.measures import MeasureRow, MeasureRows, measure
from compass_ray.report.run_reader import RunReader
from compass_ray.report.sections.measures import section

METHODS = ("zero_shot", "target", "random", "compass")
FORMER = ("item_id", "subject", "answer", "predicted", "log_probs")


def recompute(run: RunDir, language: str, method: str, thinned: bool | None) -> dict[str, Any]:
    """Family means from the columns of ``items.parquet``, and their mean."""
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in run.evaluation(method, language).read_table("items.parquet").to_pylist():
        if thinned is None or row["thinned"] == thinned:
            families[row["family"]].append(row)
    found: dict[str, Any] = {"families": {}, "items": sum(map(len, families.values()))}
    for name, rows in families.items():
        bits = sum(-row["log_prob_sums"][row["answer"]] for row in rows) / math.log(2)
        by_byte = [[s / b for s, b in zip(row["log_prob_sums"], row["bytes"], strict=True)] for row in rows]
        pairs = list(zip(rows, by_byte, strict=True))
        found["families"][name] = {
            "bits_per_byte": bits / sum(row["bytes"][row["answer"]] for row in rows),
            "probability": mean(math.exp(x[row["answer"]]) / sum(map(math.exp, x)) for row, x in pairs),
            "accuracy_by_bytes": mean(max(range(len(x)), key=x.__getitem__) == row["answer"] for row, x in pairs),
            "chance": mean(1 / len(x) for x in by_byte),
        }
    names = ("bits_per_byte", "probability", "accuracy_by_bytes", "chance")
    return found | {name: mean(each[name] for each in found["families"].values()) for name in names}


def row_of(measured: MeasureRows, language: str, scope: str, method: str) -> MeasureRow:
    return next(r for r in measured.rows if (r.language, r.scope, r.method) == (language, scope, method))


@pytest.mark.parametrize(("scope", "thinned"), [("low", True), ("other", False), ("all", None)])
def test_measures_are_those_of_the_files(complete_run: RunDir, config: RunConfig, scope: str, thinned: bool | None) -> None:
    measured = measure(RunReader(complete_run), config)
    for method in METHODS:
        languages = []
        for code in config.languages:
            expected, row = recompute(complete_run, code, method, thinned), row_of(measured, code, scope, method)
            languages.append(expected)
            assert row.mean.items == expected["items"]
            assert row.families.keys() == expected["families"].keys() == {"numbers", "words"}
            for name in ("bits_per_byte", "probability", "accuracy_by_bytes", "chance"):
                assert getattr(row.mean, name) == pytest.approx(expected[name])
                for family, summary in row.families.items():
                    assert getattr(summary, name) == pytest.approx(expected["families"][family][name])
        total = row_of(measured, MEAN, scope, method)
        assert (total.languages, total.mean.items) == (4, sum(each["items"] for each in languages))
        assert total.mean.bits_per_byte == pytest.approx(mean(each["bits_per_byte"] for each in languages))
        assert total.mean.probability == pytest.approx(mean(each["probability"] for each in languages))
    assert measured.missing == ()


def test_families_join_under_a_name(complete_run: RunDir, config: RunConfig) -> None:
    joined = config.evaluate.model_copy(update={"families": {"everything": ("*",)}})
    measured = measure(RunReader(complete_run), config.model_copy(update={"evaluate": joined}))
    row = row_of(measured, "sw", "all", "compass")
    assert row.families.keys() == {"everything"}
    assert row.mean == row.families["everything"]


def publish_again(publish: Callable[..., None], run: RunDir, method: str, language: str, table: pa.Table) -> None:
    artifact = run.evaluation(method, language)
    publish(artifact, {"items.parquet": table, "results.json": artifact.read_json("results.json")})


def test_methods_of_a_language_are_measured_on_the_same_items(
    run: RunDir, config: RunConfig, publish: Callable[..., None]
) -> None:
    publish_again(publish, run, "target", "ar", run.evaluation("target", "ar").read_table("items.parquet").slice(5))
    rows = [row for row in measure(RunReader(run), config).rows_in("all") if row.language == "ar"]
    assert {row.mean.items for row in rows} == {155}


def test_an_item_whose_reply_was_cut_off_has_no_measures(run: RunDir, config: RunConfig, publish: Callable[..., None]) -> None:
    table = run.evaluation("target", "hi").read_table("items.parquet")
    cut = pa.array([index < 3 for index in range(len(table))])
    index = table.column_names.index("truncated")
    publish_again(publish, run, "target", "hi", table.set_column(index, "truncated", cut))
    publish_again(publish, run, "zero_shot", "hi", run.evaluation("zero_shot", "hi").read_table("items.parquet"))
    measured = measure(RunReader(run), config)
    assert {row.mean.items for row in measured.rows_in("all") if row.language == "hi"} == {157}


def test_an_evaluation_of_a_former_version_has_no_measures_and_is_named(
    run: RunDir, config: RunConfig, publish: Callable[..., None]
) -> None:
    for method in METHODS:
        publish_again(publish, run, method, "sw", run.evaluation(method, "sw").read_table("items.parquet").select(FORMER))
    publish_again(publish, run, "target", "am", run.evaluation("target", "am").read_table("items.parquet").select(FORMER))
    measured = measure(RunReader(run), config)
    assert not any(row.language == "sw" for row in measured.rows)
    assert {row.method for row in measured.rows if row.language == "am"} == {"zero_shot", "random", "compass"}
    assert {row.languages for row in measured.mean_rows("all")} == {2}
    again = "Evaluations of a former version have no measures (--force evaluate makes them again)"
    assert measured.missing == (
        f"{again}, zero-shot, target, random, COMPASS: Swahili (sw).",
        f"{again}, target: Amharic (am).",
    )


def test_texts_are_compared_in_languages_that_have_one_for_every_method(
    run: RunDir, config: RunConfig, publish: Callable[..., None]
) -> None:
    for index, (code, method) in enumerate(
        [("sw", "target"), ("sw", "compass"), ("hi", "target"), ("hi", "compass"), ("ar", "target")]
    ):
        artifact, bits = run.evaluation(method, code), 1.0 + index
        text = {"bits_per_byte": bits, "perplexity": 9.0, "nats": 9.0, "lines": 2, "tokens": 3, "characters": 8, "bytes": 9}
        files = {"items.parquet": artifact.read_table("items.parquet")}
        publish(artifact, files | {"results.json": artifact.read_json("results.json") | {"text": text}})
    measured = measure(RunReader(run), config)
    assert measured.text_bits("hi", "compass") == 4.0
    assert (measured.text_bits(MEAN, "target"), measured.text_bits(MEAN, "compass")) == (2.0, 3.0)
    assert measured.text_bits("am", "target") is None
    [texts] = [
        block for block in section(RunReader(run), config).blocks if getattr(block, "caption", "").startswith("Plain text")
    ]
    assert texts.rows[0][:4] == ("Swahili (sw)", "target", "1.000", "9.0")


def test_the_primary_measures_come_first_and_the_details_are_folded(complete_run: RunDir, config: RunConfig) -> None:
    first, explanation, *details = section(RunReader(complete_run), config).blocks
    assert first.caption == "Primary measures on under-represented subjects"
    assert first.header == ("language", "method", "bits per byte", "probability, %", "chance, %", "items")
    assert not first.folded
    assert [row[1] for row in first.rows[:4]] == ["zero-shot", "target", "random", "COMPASS"]
    assert all(row[4] == "25.0" for row in first.rows)
    assert all(block.folded for block in details)
    assert "letter" in explanation.text  # the setting of this run
    for table in details:
        assert "chance, %" in table.header


def test_an_empty_run_says_so(empty: RunDir, config: RunConfig) -> None:
    [note] = section(RunReader(empty), config).blocks
    assert "No method has been evaluated" in note.text


def test_the_table_of_the_fixture_has_the_present_schema(complete_run: RunDir) -> None:
    assert complete_run.evaluation("compass", "sw").read_table("items.parquet").schema.equals(schemas.SCORED)
