"""`compass-ray report` on the command line: text, JSON and files, and errors in one line with an exit code."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pyarrow.csv as pacsv
import pytest

from compass_ray.artifacts import RunDir
from tests.unit.command_line import Command


@pytest.fixture
def report(compass_ray: Command, run: RunDir) -> Command:
    """The command on the artificial run."""
    return partial(compass_ray, f"report {run.uri}")


def test_why_prints_text_or_json(report: Command) -> None:
    printed = report("--why", "sw:hi-own-5")
    assert printed.code == 0
    assert "hi-own-5, Hindi (hi), " in printed.out
    explanation = json.loads(report("--why", "sw:hi-own-5", "--json").out)
    assert set(explanation) >= {"row", "uses", "quota", "shares", "neighbours", "guide"}
    assert set(explanation["quota"]) >= {"n_eval", "n_target", "n_aux", "weight", "quota", "selected"}
    assert set(explanation["neighbours"]) >= {"tau", "delta", "suppressed", "drawn", "closest_suppressed", "closest_drawn"}
    assert set(explanation["shares"]) == {"guide", "own", "trained"}


def test_a_cluster_and_noise(report: Command) -> None:
    assert "cluster 9: 69 pool rows" in report("--cluster", "9").out
    assert "noise (-1): 0 pool rows" in report("--cluster", "-1").out
    card = json.loads(report("--cluster", "9", "--json").out)
    assert card["cluster"]["languages"] == {"sw": 20, "hi": 10, "bul": 39}
    assert set(card["nearest"]) == {"cluster", "subject", "distance"}


def test_rows_on_the_terminal_in_json_and_in_a_file(report: Command, run: RunDir, tmp_path: Path) -> None:
    chosen = run.selection("compass", "sw").read_table("rows.parquet")["row_id"].to_pylist()
    assert [row["row_id"] for row in json.loads(report("--rows", "sw", "--json").out)] == chosen
    header, *printed = report("--rows", "sw").out.splitlines()
    assert header.split()[:4] == ["row_id", "role", "language", "cluster"]
    assert [line.split()[0] for line in printed] == chosen
    written = report("--rows", "sw", "--output", str(tmp_path / "rows.csv"))
    assert written.out.strip() == f"wrote {len(chosen)} rows to {tmp_path / 'rows.csv'}"
    assert pacsv.read_csv(tmp_path / "rows.csv")["row_id"].to_pylist() == chosen


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--why", "sw:nowhere"), 2, "row_id 'nowhere' is not in the pool"),
        (("--why", "hi-own-5"), 2, "expected LANGUAGE:ROW_ID"),
        (("--why", "swahilli:hi-own-5"), 2, "unknown language 'swahilli'"),
        (("--why", "yo:hi-own-5"), 1, "has no selection of method 'compass' for language 'yo'"),
        (("--rows", "sw", "--method", "dsir"), 2, "existing methods: compass"),
        (("--cluster", "99"), 2, "cluster 99 does not exist"),
        (("--cluster", "nine"), 2, "expected a number such as 9"),
        (("--cluster", "swahilli:9"), 2, "unknown language 'swahilli'"),
        (("--cluster", "9", "--rows", "sw"), 2, "cannot be combined; give one of them"),
        (("--output", "rows.csv"), 2, "add --rows LANGUAGE"),
        (("--rows", "sw", "--output", "rows.txt"), 2, "use a name that ends in .csv or .parquet"),
    ],
)
def test_errors_are_one_line_and_say_what_to_do(report: Command, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = report(*arguments)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
