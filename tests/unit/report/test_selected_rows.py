"""The table of selected rows equals a join of the run's files, in every output format."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError
from compass_ray.report.selected_rows import format_lines, read_selected_rows, write_rows


def joined(run: RunDir, language: str) -> list[dict[str, object]]:
    """The join by row_id and by cluster, row by row."""
    artifact = run.selection("compass", language)
    prompts = {row["row_id"]: row["prompt"] for row in run.pool.read_table("rows.parquet").to_pylist()}
    clusters = {c["cluster"]: c for c in artifact.read_json("allocation.json")["clusters"]}
    return [
        row
        | {
            "prompt": prompts[row["row_id"]],
            "cluster_weight": clusters[row["cluster"]]["weight"],
            "cluster_quota": clusters[row["cluster"]]["quota"],
        }
        for row in artifact.read_table("rows.parquet").to_pylist()
    ]


def test_the_table_is_the_join_of_selection_pool_and_allocation(run: RunDir) -> None:
    assert read_selected_rows(run, "sw").to_pylist() == joined(run, "sw")


@pytest.mark.parametrize(
    ("name", "read"), [("rows.csv", pacsv.read_csv), ("ROWS.CSV", pacsv.read_csv), ("rows.parquet", pq.read_table)]
)
def test_a_written_file_has_the_same_rows(run: RunDir, tmp_path: Path, name: str, read: object) -> None:
    table = read_selected_rows(run, "hi")
    write_rows(table, tmp_path / name)
    back: pa.Table = read(tmp_path / name)  # type: ignore[operator]
    assert back.column_names == table.column_names
    for column in ("row_id", "role", "language", "prompt", "cluster", "cluster_quota", "order", "neighbours"):
        assert back[column].to_pylist() == table[column].to_pylist()
    assert back["score"].to_pylist() == pytest.approx(table["score"].to_pylist(), nan_ok=True)


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "-", "- item"]
PLAIN = ["a=1", "-5", "+3.5", "-1,000.25", "2e-5", "", "'=1", "ሀ", "0.50"]


def test_no_text_in_csv_is_a_formula_and_numbers_stay(tmp_path: Path) -> None:
    texts = [*FORMULAS, *PLAIN]
    table = pa.table({"prompt": texts, "score": [-0.5] * len(texts), "cluster": [-1] * len(texts)})
    write_rows(table, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["prompt"] for row in found] == [*(f"'{text}" for text in FORMULAS), *PLAIN]
    assert {(row["score"], row["cluster"]) for row in found} == {("-0.5", "-1")}
    write_rows(table, tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet")["prompt"].to_pylist() == texts


def test_lines_for_a_terminal_are_aligned_and_end_in_a_short_prompt(run: RunDir) -> None:
    header, *shown = format_lines(read_selected_rows(run, "sw"))
    start = header.index("prompt")
    assert len(shown) == 180
    assert {line[start - 2 : start] for line in shown} == {"  "}
    assert all(0 < len(line[start:]) <= 40 for line in shown)
    assert "0.820" in shown[-1]


def test_an_unsupported_file_type_is_refused(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows.txt.*use a name that ends in .csv or .parquet"):
        write_rows(read_selected_rows(run, "sw"), tmp_path / "rows.txt")
