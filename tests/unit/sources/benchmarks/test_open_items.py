"""XQuAD and MGSM as they lie on the hub, as items with every accepted answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray import tables
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources.benchmarks.open_items import read_open_items

from .hub import MGSM, XNLI, XQUAD, Rows, repository

QUESTIONS: Rows = [
    {
        "id": "1",
        "context": "Nairobi ni mji mkuu.",
        "question": "Mji mkuu?",
        "answers": {"text": ["Nairobi"], "answer_start": [0]},
    },
    {"id": "2", "context": "x", "question": "y", "answers": {"text": ["b", "a", "b"], "answer_start": [0, 1, 0]}},
]
SUMS: Rows = [
    {"question": "Mayai 3 na 4?", "answer": None, "answer_number": 7, "equation_solution": None},
    {"question": "Elfu moja na saba?", "answer": None, "answer_number": 1007, "equation_solution": None},
]


def test_xquad_asks_of_its_context_and_takes_every_answer(tmp_path: Path) -> None:
    path = repository(tmp_path / "xquad", {"xquad.ar": {"validation": QUESTIONS}}, XQUAD)
    found = read_open_items(SourceConfig(path=path, name="xquad.{language}", split="validation"), "ar")
    assert found.schema == tables.OPEN_ITEMS
    items = {item["question"]: (item["answers"], item["metric"], item["language"]) for item in found.to_pylist()}
    assert items == {"Nairobi ni mji mkuu.\n\nMji mkuu?": (["Nairobi"], "f1", "ar"), "x\n\ny": (["b", "a"], "f1", "ar")}


def test_mgsm_is_read_from_parquet_and_from_its_tables_without_names(tmp_path: Path) -> None:
    path = repository(tmp_path / "mgsm", {"sw": {"test": SUMS}}, MGSM)
    parquet = read_open_items(SourceConfig(path=path, name="{language}", split="test"), "sw")
    (tmp_path / "mgsm_sw.tsv").write_text('Mayai 3 na 4?\t7\nElfu moja na saba?\t1,007\n"Nukuu?\t2\n', "utf-8")
    table = read_open_items(SourceConfig(path=str(tmp_path / "mgsm_{language}.tsv"), layout="mgsm"), "sw")
    assert {(i["question"], *i["answers"]) for i in parquet.to_pylist()} == {
        ("Mayai 3 na 4?", "7"),
        ("Elfu moja na saba?", "1007"),
    }
    assert set(parquet["metric"].to_pylist()) == {"number"}
    assert [i for i in table.to_pylist() if i["question"] != '"Nukuu?'] == parquet.to_pylist()
    assert table.num_rows == 3


def test_fewer_items_are_some_of_the_same(tmp_path: Path) -> None:
    path = repository(tmp_path / "mgsm", {"sw": {"test": SUMS}}, MGSM)
    source = SourceConfig(path=path, name="{language}", split="test")
    assert read_open_items(source, "sw", 1).equals(read_open_items(source, "sw").slice(0, 1))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{**QUESTIONS[0], "answers": {"text": [], "answer_start": []}}], "row 0 lacks a question or an answer"),
        ([*QUESTIONS, {**QUESTIONS[0], "context": None}], "row 2 lacks a question or an answer"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, rows: Rows, told: str) -> None:
    path = repository(tmp_path / "xquad", {"xquad.ar": {"validation": rows}}, XQUAD)
    with pytest.raises(ConfigError, match=told):
        read_open_items(SourceConfig(path=path, name="xquad.{language}", split="validation"), "ar")


def test_a_filter_that_leaves_nothing_is_told(tmp_path: Path) -> None:
    path = repository(tmp_path / "xquad", {"xquad.ar": {"validation": QUESTIONS}}, XQUAD)
    with pytest.raises(ConfigError, match="holds no items in 'ar'; check its name, split and filters"):
        read_open_items(SourceConfig(path=path, name="xquad.ar", split="validation", where={"id": "9"}), "ar")


def test_multiple_choice_is_not_read_here(tmp_path: Path) -> None:
    path = repository(tmp_path / "xnli", {"sw": {"test": [{"premise": "a", "hypothesis": "b", "label": 0}]}}, XNLI)
    with pytest.raises(ConfigError, match=r"not those of xquad or mgsm; multiple choice is read through pool\.tests"):
        read_open_items(SourceConfig(path=path, name="sw", split="test"), "sw")
