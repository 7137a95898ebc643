"""Conversations in the report: an explanation, the list of selected rows and the samples show all turns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.report.explain import explain_row
from compass_ray.report.explain_text import shorten_turns
from compass_ray.report.run_reader import RunReader
from compass_ray.report.sections import added_rows
from compass_ray.report.selected_rows import read_selected_rows, write_rows
from tests.unit.report.conftest import write_artifact

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Habari?"},
    {"role": "assistant", "content": "Nzuri."},
    {"role": "user", "content": "Mji mkuu?"},
    {"role": "assistant", "content": "Nairobi."},
]
TEXT = "system: Be brief.\nuser: Habari?\nassistant: Nzuri.\nuser: Mji mkuu?\nassistant: Nairobi."


@pytest.fixture
def row_id(run: RunDir) -> str:
    """A selected row that is a conversation from now on."""
    chosen = run.selection("compass", "sw").read_table("rows.parquet").to_pylist()
    [found] = [row["row_id"] for row in chosen if row["role"] == "auxiliary" and row["order"] == 0]
    pool = run.pool.read_table("rows.parquet").to_pylist()
    rows = [row | ({"messages": TURNS, "prompt": "Mji mkuu?"} if row["row_id"] == found else {}) for row in pool]
    write_artifact(run.pool, {"rows.parquet": pa.Table.from_pylist(rows, schemas.POOL)})
    return str(found)


def test_an_explanation_shows_every_turn(run: RunDir, row_id: str) -> None:
    found = explain_row(run, "sw", row_id)
    assert (found.prompt, list(found.messages)) == ("Mji mkuu?", TURNS)
    assert found.lines()[1:6] == TEXT.split("\n")
    assert explain_row(run, "sw", "sw-own-3").messages == ()


def test_the_list_of_rows_has_the_conversation(run: RunDir, row_id: str, tmp_path: Path) -> None:
    table = read_selected_rows(run, "sw")
    found = {row["row_id"]: row["conversation"] for row in table.to_pylist()}
    assert {name: text for name, text in found.items() if text} == {row_id: TEXT}
    write_rows(table, tmp_path / "rows.csv")
    assert "user: Mji mkuu?" in (tmp_path / "rows.csv").read_text("utf-8")


def test_the_samples_of_the_report_show_the_start_of_the_conversation(run: RunDir, config: RunConfig, row_id: str) -> None:
    shown = "system: Be brief.\nuser: Habari?\nassistant: Nzuri.\nuser: Mji mkuu?\n… (+1 lines)"
    assert repr(shown)[1:-1] in str(added_rows.section(RunReader(run), config.languages).blocks)


def test_long_prompts_and_turns_are_cut_and_what_is_cut_is_counted() -> None:
    assert shorten_turns("x" * 321) == "x" * 320 + "… (+1 characters)"
    assert shorten_turns(f"user: {'y' * 200}\nassistant: z") == f"user: {'y' * 154}… (+46 characters)\nassistant: z"
