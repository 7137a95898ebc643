"""Logs that survive a kill in the middle of a line."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir, jsonl_log


def test_records_come_back_in_order(run: RunDir) -> None:
    jsonl_log.append(run, "log.jsonl", [{"n": 1}, {"n": 2}])
    jsonl_log.append(run, "log.jsonl", [{"n": 3, "text": "línea\nnueva"}])
    assert [record["n"] for record in jsonl_log.read(run, "log.jsonl")] == [1, 2, 3]


def test_nothing_was_written(run: RunDir) -> None:
    jsonl_log.append(run, "log.jsonl", [])
    assert jsonl_log.read(run, "log.jsonl") == []


@pytest.mark.parametrize("cut", range(1, 12))
def test_only_an_incomplete_last_line_is_lost(run: RunDir, cut: int) -> None:
    jsonl_log.append(run, "log.jsonl", [{"n": 1}, {"n": 2}])
    path = Path(run.path) / "monitor" / "log.jsonl"
    complete = path.read_bytes()
    path.write_bytes(complete + b'{"n": 99, "te'[:cut])
    jsonl_log.append(run, "log.jsonl", [{"n": 3}])
    assert [record["n"] for record in jsonl_log.read(run, "log.jsonl")] == [1, 2, 3]


def test_rewrite_replaces_the_file(run: RunDir) -> None:
    jsonl_log.append(run, "log.jsonl", [{"n": n} for n in range(100)])
    jsonl_log.rewrite(run, "log.jsonl", [{"n": 7}])
    jsonl_log.append(run, "log.jsonl", [{"n": 8}])
    assert jsonl_log.read(run, "log.jsonl") == [{"n": 7}, {"n": 8}]


def test_numbers_that_json_has_no_name_for_are_refused_before_writing(run: RunDir) -> None:
    with pytest.raises(ValueError, match="JSON"):
        jsonl_log.append(run, "log.jsonl", [{"n": float("nan")}])
    assert jsonl_log.read(run, "log.jsonl") == []


def test_none_of_several_writers_loses_a_line_on_a_store(s3_uri: str) -> None:
    run, writers = RunDir(s3_uri), 4
    start = threading.Barrier(writers)

    def write(writer: int) -> None:
        start.wait(10)
        for n in range(3):
            jsonl_log.append_shared(run, "log.jsonl", [{"writer": writer, "n": n}])

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    found = [(record["writer"], record["n"]) for record in jsonl_log.read(run, "log.jsonl")]
    assert sorted(found) == [(writer, n) for writer in range(writers) for n in range(3)]
    for writer in range(writers):
        assert [n for who, n in found if who == writer] == [0, 1, 2]


def test_append_shared_works_on_a_disk_too(run: RunDir) -> None:
    jsonl_log.append_shared(run, "log.jsonl", [{"n": 1}])
    jsonl_log.append_shared(run, "log.jsonl", [])
    jsonl_log.append(run, "log.jsonl", [{"n": 2}])
    assert [record["n"] for record in jsonl_log.read(run, "log.jsonl")] == [1, 2]


def test_an_append_with_a_lost_response_is_not_repeated(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray.artifacts.object_store import ConditionalObjectStore

    run, put = RunDir(s3_uri), ConditionalObjectStore.put
    jsonl_log.append_shared(run, "log.jsonl", [{"n": 1}])
    monkeypatch.setattr(ConditionalObjectStore, "put", lambda *words: put(*words) and False)
    jsonl_log.append_shared(run, "log.jsonl", [{"n": 2}])
    assert [record["n"] for record in jsonl_log.read(run, "log.jsonl")] == [1, 2]
