"""A suite in a folder: its variants, its cost, and its page, on runs with known answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, read_raw_config
from compass_ray.evaluation.experiments import Experiment, VariantAttempt, variant_run_dir
from compass_ray.evaluation.suites import Suite, build_experiment, estimate_costs, load_suite, write_page
from compass_ray.evaluation.suites.method_scores import ScoreReader, mean_accuracy, mean_chance, mean_difference
from compass_ray.evaluation.suites.paper_comparison import best_rows, compare_entry
from tests.unit.evaluation.experiments.made_up import fill, first_correct

PRESET = "atlas-test"
ITEMS = 40
SUITE = {
    "title": "A paper",
    "source": "somewhere",
    "entries": ["table", "budgets", "languages", "groups", "other"],
    "methods": ["target", "compass"],
    "presets": {PRESET: {"seeds": [0, 1], "cpu": {"start": 60, "adapter": 30, "how": "measured", "note": "a note"}}},
}
_ROWS = [
    {"name": "ZS", "method": "zero_shot", "values": [20, 30]},
    {"name": "Own", "method": "target", "values": [40, 50]},
    {"name": "Ours", "method": "compass", "values": [46, 60]},
    {"name": "Elsewhere", "values": [1, 2]},
]
ENTRIES = {
    "table": {
        "title": "Methods",
        "where": "Table 1",
        "shows": "Ours is best.",
        "columns": [{"name": "big model"}, {"name": "small model", "presets": [PRESET]}],
        "rows": _ROWS,
        "reference": "Own",
        "inconsistencies": ["The text has 61."],
    },
    "budgets": {
        "title": "Budgets",
        "where": "Figure 3",
        "shows": "Less is more.",
        "kind": "budgets",
        "columns": [{"name": "best"}],
        "vary": {"select.budget": [0.2]},
        "rows": [
            {"name": "Own", "method": "target", "values": [None]},
            {"name": "20%", "method": "compass", "variant": "select.budget=0.2", "values": [19]},
            {"name": "80%", "method": "compass", "values": [10]},
        ],
        "reference": "Own",
    },
    "languages": {
        "title": "By language",
        "where": "Table 5",
        "shows": "All gain.",
        "kind": "languages",
        "languages": ["hi", "sw"],
        "rows": _ROWS,
        "reference": "Own",
    },
    "groups": {"title": "By group", "where": "Figure 2", "shows": "x", "kind": "groups", "data": "languages", "reference": "Own"},
    "other": {"title": "Drift", "where": "Table 11", "shows": "x", "kind": "sweep", "on_request": True},
}
SHARES = {
    "sw": {"zero_shot": 0.25, "target": 0.5, "compass": 0.75},
    "hi": {"zero_shot": 0.25, "target": 0.5, "compass": 0.5},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the suite."""
    made = tmp_path / "mine"
    made.mkdir()
    for name, content in {"suite": SUITE, **ENTRIES}.items():
        (made / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return made


@pytest.fixture
def suite(folder: Path) -> Suite:
    return load_suite(str(folder))


@pytest.fixture
def experiment(suite: Suite) -> Experiment:
    return build_experiment(suite, suite.entries, read_raw_config(PRESET), PRESET, languages=["sw", "hi"])


@pytest.fixture
def attempts(experiment: Experiment, tmp_path: Path) -> list[VariantAttempt]:
    """Runs of all variants. With a budget of 0.2, COMPASS has 60% in Hindi and nothing else."""
    found = []
    for variant in experiment.variants:
        run = variant_run_dir(RunDir(str(tmp_path / "runs")), variant)
        run.write_config(variant.config)
        for code, shares in SHARES.items():
            answers = {method: first_correct(share, ITEMS) for method, share in shares.items()}
            other = {"compass": first_correct(0.6 if code == "hi" else 0.5, ITEMS)}
            fill(run, code, answers if variant.group == "base" else other)
        found.append(VariantAttempt(variant, run, None))
    return found


def test_variants_are_shared_and_only_the_unchanged_preset_has_all_methods(experiment: Experiment) -> None:
    methods = {variant.name: variant.config.select.methods for variant in experiment.variants}
    assert methods == {
        "seed=0": ("target", "compass"),
        "seed=1": ("target", "compass"),
        "select.budget=0.2,seed=0": ("compass",),
        "select.budget=0.2,seed=1": ("compass",),
    }
    assert experiment.against == "seed=0"


def test_seeds_of_the_command_line_replace_those_of_the_suite(suite: Suite) -> None:
    chosen = suite.chosen(["table"], PRESET)
    made = build_experiment(suite, chosen, read_raw_config(PRESET), PRESET, seeds=[7])
    assert [variant.name for variant in made.variants] == ["seed=7"]


def test_an_entry_costs_what_no_earlier_one_has(suite: Suite, experiment: Experiment) -> None:
    costs = estimate_costs(suite, suite.entries, experiment, PRESET)
    assert {name: (cost.runs, cost.adapters) for name, cost in costs.items()} == {
        "table": (2, 2 * 2 * 2),  # seeds, methods, languages
        "budgets": (2, 2 * 1 * 2),
        "languages": (0, 0),
        "groups": (0, 0),
        # In two languages: the first version, three updates with naive and ECDA, and 6 x 4 values of which one is the default.
        "other": (0, 2 * (1 + 3 * 2 + 6 * 4 - 1)),
    }
    assert costs["table"].cpu is not None
    assert (costs["table"].cpu.seconds, costs["table"].cpu.how) == (2 * 60 + 8 * 30, "measured")
    assert costs["table"].gpu is None
    assert costs["budgets"].cpu is not None
    assert costs["budgets"].cpu.seconds == 4 * 30  # its runs share what comes before the first adapter
    assert costs["other"].cpu is not None
    assert costs["other"].cpu.seconds == 60 * 30


def test_scores_are_means_over_languages_and_paired(attempts: list[VariantAttempt]) -> None:
    reader = ScoreReader(attempts)
    compass, target = reader.scores("base", "compass"), reader.scores("base", "target")
    found = mean_accuracy(compass)
    assert found is not None
    assert (found.mean, found.languages, found.seeds, found.items) == (pytest.approx(0.625), 2, 2, 2 * ITEMS)
    assert mean_chance(compass) == 0.5
    difference = mean_difference(compass, target)
    assert difference is not None
    assert difference.mean == pytest.approx((0.25 + 0.0) / 2)
    assert difference.interval.low < 0 < difference.interval.high  # one of two languages gains
    own = mean_difference(compass, target, ["sw"])
    assert own is not None
    assert (own.mean, own.languages) == (pytest.approx(0.25), 1)
    deviation = (0.25 * 0.75 / ITEMS) ** 0.5  # a quarter of the items differ by 1
    assert (own.interval.high - own.interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.15)
    assert mean_accuracy(reader.scores("base", "random")) is None


def test_rows_stand_beside_the_column_of_the_preset(suite: Suite, attempts: list[VariantAttempt]) -> None:
    reader = ScoreReader(attempts)
    found = compare_entry(suite, "table", reader, PRESET, ["sw", "hi"])
    assert (found.column, found.same_model) == ("small model", True)
    by_name = {row.name: row for row in found.rows}
    assert (by_name["Ours"].paper, by_name["Ours"].paper_difference) == (60, 10)
    assert by_name["Ours"].ours is not None
    assert by_name["Ours"].ours.mean == pytest.approx(0.625)
    assert by_name["Own"].difference is None
    assert by_name["Elsewhere"].ours is None
    assert by_name["ZS"].above_chance is False
    other = compare_entry(suite, "table", reader, "atlas", ["sw", "hi"])
    assert (other.column, other.same_model) == ("big model", False)


def test_languages_and_groups_have_the_paper_s_means_of_the_same_languages(suite: Suite, attempts: list[VariantAttempt]) -> None:
    reader = ScoreReader(attempts)
    languages = compare_entry(suite, "languages", reader, PRESET, ["sw"])
    assert {(row.label, row.name): row.paper for row in languages.rows}[("sw", "Ours")] == 60
    assert {row.label for row in languages.rows} == {"sw"}
    groups = compare_entry(suite, "groups", reader, PRESET, ["sw", "hi"])
    ours = {row.label: row for row in groups.rows if row.name == "Ours"}
    assert {label: row.paper for label, row in ours.items()} == {
        "script: Latin": 60,
        "script: Devanagari": 46,
        "family: Atlantic-Congo": 60,
        "family: Indo-European": 46,
        "branch: Atlantic-Congo": 60,
        "branch: Indo-Aryan": 46,
    }
    assert ours["script: Latin"].difference is not None
    assert ours["script: Latin"].difference.mean == pytest.approx(0.25)


def test_the_best_budget_is_counted_by_language(suite: Suite, attempts: list[VariantAttempt]) -> None:
    assert best_rows(suite.entries["budgets"], ScoreReader(attempts), ["sw", "hi"]) == {"20%": 1, "80%": 1}


def test_the_page_sets_both_results_side_by_side(
    suite: Suite, experiment: Experiment, attempts: list[VariantAttempt], tmp_path: Path
) -> None:
    compared = write_page(RunDir(str(tmp_path / "runs")), suite, suite.entries, experiment, attempts, PRESET)
    page = (tmp_path / "runs/index.html").read_text("utf-8")
    text = re.sub(r"<[^>]+>", " ", page)
    assert "Inconsistent in the paper: The text has 61." in text
    [row] = [line for line in page.split("<tr") if ">Ours</th>" in line and "60.0" in line][:1]
    assert ">+10.0<" in row
    assert ">50.0<" in row  # chance
    assert "62.5 [" in row
    assert f"compass-ray experiment --suite mine --preset {PRESET} --run {tmp_path}/runs --only other" in text
    record = json.loads((tmp_path / "runs/suite.json").read_text("utf-8"))
    assert record.keys() == compared.keys() == suite.entries.keys()
    assert record["table"]["rows"][2]["ours"]["interval"]["mean"] == pytest.approx(0.625)


def test_a_suite_that_has_not_run_has_a_page_too(suite: Suite, experiment: Experiment, tmp_path: Path) -> None:
    runs = RunDir(str(tmp_path / "none"))
    attempts = [VariantAttempt(variant, variant_run_dir(runs, variant), None) for variant in experiment.variants]
    write_page(runs, suite, suite.entries, experiment, attempts, PRESET)
    page = (tmp_path / "none/index.html").read_text("utf-8")
    assert page.count("None of these methods has been evaluated.") == 4
    assert ">not run<" in page


Change = Callable[[dict[str, object]], object]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("table", lambda e: e.update(reference="Nothing"), "table.yaml: .*reference 'Nothing' is not a row"),
        ("table", lambda e: e.update(columns=[]), "row 'ZS' has 2 values, and the table has 0 columns"),
        ("table", lambda e: e.update(colums=[]), "colums: Extra inputs are not permitted"),
        ("groups", lambda e: e.update(data="table"), "groups.yaml: data 'table' is not an entry with languages"),
        ("other", lambda e: e.update(kind="harness"), "kind harness needs tasks and methods"),
        ("languages", lambda e: e.update(languages=["hi", "swa"]), "unknown language 'swa'"),
    ],
)
def test_a_wrong_file_is_named(folder: Path, name: str, change: Change, message: str) -> None:
    entry = dict(ENTRIES[name])
    change(entry)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(entry))
    with pytest.raises(ConfigError, match=message):
        load_suite(str(folder))


def test_a_missing_suite_or_file_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of paper, or a folder with suite\\.yaml"):
        load_suite(str(tmp_path))
    (folder / "table.yaml").unlink()
    with pytest.raises(ConfigError, match="table\\.yaml: cannot be read"):
        load_suite(str(folder))


def test_an_unknown_entry_is_refused_with_the_known_ones(suite: Suite) -> None:
    with pytest.raises(ConfigError, match="has no entry 'tabel'; choose some of table, budgets"):
        suite.chosen(["tabel"], PRESET)
