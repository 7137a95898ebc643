"""Differences are paired over equal items only, deviations are over seeds, and a missing value is a dash."""

from __future__ import annotations

import html
import json
import math
import re
import statistics
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.evaluation.experiments import (
    ExperimentOutcomes,
    ResultTable,
    VariantAttempt,
    build_tables,
    collect_outcomes,
    write_report,
)
from tests.unit.evaluation.experiments.made_up import fill, first_correct, make_attempts, make_experiment
from tests.unit.fakes import record_contents

SW, HI = 40, 20
"""Test items of the two languages."""


@pytest.fixture
def two(tmp_path: Path) -> list[VariantAttempt]:
    """Two budgets. COMPASS has 25% and 50% correct with the first, 75% and 50% with the second."""
    variants = make_attempts(make_experiment("select.budget=0.4,1.2"), tmp_path)
    for each, share, js in zip(variants, (0.25, 0.75), (0.3, 0.1), strict=True):
        fill(each.run, "sw", {"zero_shot": first_correct(0.5, SW), "compass": first_correct(share, SW)}, js=js)
        fill(each.run, "hi", {"zero_shot": first_correct(0.5, HI), "compass": first_correct(0.5, HI)}, js=js)
    return variants


def _measured(variants: list[VariantAttempt]) -> ExperimentOutcomes:
    return collect_outcomes(make_experiment("select.budget=0.4,1.2"), variants)


def _listing(outcomes: ExperimentOutcomes, title: str) -> ResultTable:
    [found] = [each for each in build_tables(outcomes) if title in each.title]
    return found


def test_a_difference_is_the_mean_over_languages_of_paired_differences(two: list[VariantAttempt]) -> None:
    first, second = _measured(two).variants
    assert first.accuracy["all"]["compass"].mean == pytest.approx((0.25 + 0.5) / 2)
    found = second.difference["all"]["compass"]
    assert (found.interval.mean, found.items, found.languages) == (pytest.approx((0.5 + 0.0) / 2), SW + HI, 2)
    # Half of the items of one language differ, each by 1; the binomial's deviation of their share, over two languages.
    deviation = (0.25 / SW) ** 0.5 / 2
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.15)
    assert first.difference == {}
    assert second.reference == first.name == "select.budget=0.4"


def test_measures_are_means_over_families_and_languages(two: list[VariantAttempt]) -> None:
    """Two options of 4 bytes with -2 and -8 nats: 0.5 and 2 nats for each byte."""
    first, second = _measured(two).variants
    right, wrong = (1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(1.5)))
    found = first.measures["all"]["compass"]
    shares = (0.25 + 0.5) / 2  # both families of a language have the same share of correct answers
    assert (found.languages, found.mean.items, found.mean.chance) == (2, SW + HI, 0.5)
    assert found.mean.accuracy_by_bytes == found.mean.accuracy_by_sum == pytest.approx(shares)
    assert found.mean.probability == pytest.approx(shares * right + (1 - shares) * wrong)
    assert found.mean.bits_per_byte == pytest.approx((shares * 0.5 + (1 - shares) * 2.0) / math.log(2))
    assert found.families.keys() == {"family 0", "family 1"}
    assert second.measures["low"].keys() == {"zero_shot", "compass"}
    assert first.chance == {"low": 0.5, "all": 0.5}


def test_every_table_of_accuracy_shows_the_chance_level(two: list[VariantAttempt]) -> None:
    outcomes = _measured(two)
    tables = [each for each in build_tables(outcomes) if each.kind in ("accuracy", "measures")]
    assert len([each for each in tables if not each.folded]) == 3
    assert all(any(cell.startswith("chance") for cell in each.rows[0]) for each in tables)
    header, first, *_ = _listing(outcomes, "Primary measures on under-represented subjects").rows
    assert header == ("variant", "method", "bits per byte", "probability, %", "chance, %", "items")
    assert first[:2] == ("select.budget=0.4", "zero-shot")
    assert first[4] == "50.0"


def test_zero_shot_does_not_change_and_is_omitted_from_the_table(two: list[VariantAttempt]) -> None:
    outcomes = _measured(two)
    assert not outcomes.variants[1].difference["all"]["zero_shot"].is_nonzero
    header, (name, difference, items) = _listing(outcomes, "Difference from select.budget=0.4 on all subjects").rows
    assert header == ("variant", "COMPASS", "items")
    assert (name, items) == ("select.budget=1.2", str(SW + HI))
    assert difference.startswith("+25.0 [+1")


def test_only_items_that_both_answered_are_compared(tmp_path: Path) -> None:
    variants = make_attempts(make_experiment("select.budget=0.4,1.2"), tmp_path)
    fill(variants[0].run, "sw", {"compass": first_correct(1.0, 30)})
    fill(variants[1].run, "sw", {"compass": first_correct(0.5, SW)})
    fill(variants[1].run, "hi", {"compass": first_correct(0.5, HI)})
    found = _measured(variants).variants[1].difference["all"]["compass"]
    assert (found.items, found.languages) == (30, 1)
    assert found.interval.mean == pytest.approx(20 / 30 - 1)


def test_languages_with_different_under_represented_subjects_are_not_compared(two: list[VariantAttempt]) -> None:
    fill(two[1].run, "sw", {"compass": first_correct(0.75, SW)}, low=("subject 2",))
    second = _measured(two).variants[1]
    assert second.difference["all"]["compass"].languages == 2
    assert second.difference["low"]["compass"].items == HI / 2
    assert second.difference["low"]["compass"].languages == 1


def test_an_evaluation_reused_from_another_seed_does_not_decide_what_is_under_represented(tmp_path: Path) -> None:
    variants = make_attempts(make_experiment("seed=0,1"), tmp_path)
    for each, low in zip(variants, ("subject 1", "subject 2"), strict=True):
        fill(each.run, "sw", {"zero_shot": first_correct(0.5, SW), "compass": first_correct(0.5, SW)}, low=(low,))
        evaluation = each.run.evaluation("zero_shot", "sw")
        evaluation.store_bytes("results.json", json.dumps({"low_subjects": ["subject 1"]}).encode())
        record_contents(evaluation)
    outcomes = collect_outcomes(make_experiment("seed=0,1"), variants)
    # The items of one subject in four, and the first half of all items is correct.
    assert [o.items["low"] for o in outcomes.variants] == [SW // 4, SW // 4]
    assert outcomes.variants[1].difference["all"]["compass"].items == SW
    assert "low" not in outcomes.variants[1].difference


def test_the_gap_and_the_cost_are_those_of_the_artifacts(two: list[VariantAttempt]) -> None:
    outcomes = _measured(two)
    assert _listing(outcomes, "Divergence from the guide set with the rows of COMPASS").rows[1:] == [
        ("select.budget=0.4", "0.400", "0.300", "25.0"),
        ("select.budget=1.2", "0.400", "0.100", "25.0"),
    ]
    cost = outcomes.variants[1].cost
    assert (cost.training_seconds, cost.taken, cost.whole) == (5.0, 0, 8)


def test_seeds_are_grouped_and_compared_seed_by_seed(tmp_path: Path) -> None:
    experiment = make_experiment("select.budget=0.4,1.2", "seed=0,1,2")
    shares = {(0.4, 0): 0.25, (0.4, 1): 0.5, (0.4, 2): 0.3, (1.2, 0): 0.5, (1.2, 1): 0.6, (1.2, 2): 0.75}
    variants = make_attempts(experiment, tmp_path)
    for each in variants:
        settings = each.variant.config
        assert isinstance(settings.select.budget, float)
        fill(each.run, "sw", {"compass": first_correct(shares[settings.select.budget, settings.seed], SW)})
    outcomes = collect_outcomes(experiment, variants)
    low, high = outcomes.seeds
    assert (low.group, low.seeds) == ("select.budget=0.4", (0, 1, 2))
    assert low.difference["all"] == {}
    found, differ = high.accuracy["all"]["compass"], high.difference["all"]["compass"]
    assert (found.mean, found.deviation) == pytest.approx((statistics.mean(x := (0.5, 0.6, 0.75)), statistics.stdev(x)))
    assert (differ.mean, differ.deviation) == pytest.approx((statistics.mean(d := (0.25, 0.1, 0.45)), statistics.stdev(d)))
    title = "Over seeds: difference from select.budget=0.4 with the same seed on all subjects"
    assert _listing(outcomes, title).rows == [("variant", "seeds", "COMPASS"), ("select.budget=1.2", "3", "26.7 ± 17.6")]


def test_a_variant_that_failed_has_its_row_and_its_reason(two: list[VariantAttempt], tmp_path: Path) -> None:
    experiment = make_experiment("select.budget=0.4,1.2,1.6,1.8")
    failed = make_attempts(experiment, tmp_path, **{"select.budget=1.6": "no <rows>", "select.budget=1.8": "no <rows>"})
    outcomes = collect_outcomes(experiment, [*two, *failed[2:]])
    assert outcomes.failures == {"no <rows>": ["select.budget=1.6", "select.budget=1.8"]}
    assert _listing(outcomes, "Accuracy on all subjects").rows[3] == ("select.budget=1.6", "–", "–", "–", "–")
    assert _listing(outcomes, "Difference from select.budget=0.4 on all subjects").rows[2:] == [
        ("select.budget=1.6", "–", "–"),
        ("select.budget=1.8", "–", "–"),
    ]
    write_report(RunDir(str(tmp_path)), outcomes)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "Failed: select.budget=1.6, select.budget=1.8: no &lt;rows&gt;" in page


def test_the_page_and_the_record_say_the_same_as_the_tables(two: list[VariantAttempt], tmp_path: Path) -> None:
    outcomes, where = _measured(two), RunDir(str(tmp_path))
    write_report(where, outcomes)
    page = (tmp_path / "index.html").read_text("utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "\n", page))
    assert all(cell in text for each in build_tables(outcomes) for row in each.rows for cell in row)
    assert "Differences: 2; intervals that exclude 0: 2; expected by chance: 0.1." in text
    assert page.count('<svg class="plot"') == 3
    record = json.loads((tmp_path / "experiment.json").read_text("utf-8"))
    assert record["against"] == "select.budget=0.4"
    assert record["variants"][1]["difference"]["all"]["compass"]["interval"]["mean"] == pytest.approx(0.25)
    write_report(where, outcomes)
    assert (tmp_path / "index.html").read_text("utf-8") == page


def test_without_any_evaluation_the_page_says_so(tmp_path: Path) -> None:
    outcomes = _measured(make_attempts(make_experiment("select.budget=0.4,1.2"), tmp_path))
    assert [each.kind for each in build_tables(outcomes)] == ["cost"]
    write_report(RunDir(str(tmp_path)), outcomes)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "No variant has been evaluated." in page
    assert "No variant has selected rows." in page


def test_the_page_labels_variants_that_were_not_trained_at_equal_cost(tmp_path: Path) -> None:
    variants = make_attempts(make_experiment("select.budget=0.4,1.2"), tmp_path)
    for each, tokens in zip(variants, (5120, 9216), strict=True):
        history = {"compass": {"tokens": tokens, "steps": tokens // 128}}
        fill(each.run, "sw", {"compass": first_correct(0.5, SW)}, histories=history)
    outcomes = _measured(variants)
    assert _listing(outcomes, "Cost").rows[1][-3:-1] == ("5,120", "40")
    write_report(RunDir(str(tmp_path)), outcomes)
    page = html.unescape((tmp_path / "index.html").read_text("utf-8"))
    assert "variants were not: from 5,120 tokens in 40 steps (COMPASS, select.budget=0.4) to 9,216 tokens in 72 steps" in page
    recorded = json.loads((tmp_path / "experiment.json").read_text("utf-8"))["variants"][1]["training"]
    assert recorded["methods"]["compass"] == {"tokens": 9216.0, "reply_tokens": None, "steps": 72.0}
