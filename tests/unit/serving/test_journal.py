"""Logs that survive a kill in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.serving import journal


def test_records_come_back_in_order(run: RunDir) -> None:
    journal.append(run, "log.jsonl", [{"n": 1}, {"n": 2}])
    journal.append(run, "log.jsonl", [{"n": 3, "text": "línea\nnueva"}])
    assert [record["n"] for record in journal.read(run, "log.jsonl")] == [1, 2, 3]


def test_nothing_was_written(run: RunDir) -> None:
    journal.append(run, "log.jsonl", [])
    assert journal.read(run, "log.jsonl") == []


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_loses_itself_only(run: RunDir, cut: int) -> None:
    journal.append(run, "log.jsonl", [{"n": 1}, {"n": 2}])
    path = Path(run.path) / "monitor" / "log.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 99, "te'[:cut])
    journal.append(run, "log.jsonl", [{"n": 3}])
    assert [record["n"] for record in journal.read(run, "log.jsonl")] == [1, 2, 3]


def test_rewriting_replaces_the_whole(run: RunDir) -> None:
    journal.append(run, "log.jsonl", [{"n": n} for n in range(100)])
    journal.rewrite(run, "log.jsonl", [{"n": 7}])
    journal.append(run, "log.jsonl", [{"n": 8}])
    assert journal.read(run, "log.jsonl") == [{"n": 7}, {"n": 8}]


def test_numbers_that_json_has_no_name_for_are_refused_before_writing(run: RunDir) -> None:
    with pytest.raises(ValueError, match="JSON"):
        journal.append(run, "log.jsonl", [{"n": float("nan")}])
    assert journal.read(run, "log.jsonl") == []
