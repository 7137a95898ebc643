"""Files with prompts or secrets are private under any umask, also if an earlier version left them open."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.artifacts.files import Files


@pytest.fixture(autouse=True)
def permissive_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_way_of_writing_a_monitor_file_makes_it_private(run: RunDir) -> None:
    jsonl_log.append(run, "traffic.jsonl", [{"n": 1}])
    jsonl_log.append_shared(run, "decisions.jsonl", [{"n": 1}])
    jsonl_log.rewrite(run, "feedback.jsonl", [{"n": 1}])
    run.write_monitor("windows/sw-1.parquet", b"PAR1")
    run.extend_monitor("reviews.jsonl", lambda before: before + b"{}\n")
    monitor = Path(run.path, "monitor")
    assert {_mode(path) for path in monitor.rglob("*") if path.is_file()} == {0o600}
    assert {_mode(path) for path in [monitor, monitor / "windows"]} == {0o700}


def test_files_and_folders_of_an_earlier_version_become_private(run: RunDir) -> None:
    log = Path(run.path, "monitor", "traffic.jsonl")
    log.parent.mkdir(parents=True)
    log.write_text('{"n": 1}\n')
    assert _mode(log) == 0o666
    jsonl_log.append(run, "traffic.jsonl", [{"n": 2}])
    assert (_mode(log), _mode(log.parent)) == (0o600, 0o700)
    assert jsonl_log.read(run, "traffic.jsonl") == [{"n": 1}, {"n": 2}]


def test_other_files_follow_the_umask(run: RunDir, tmp_path: Path) -> None:
    os.umask(0o027)
    Files(run.filesystem).put(f"{tmp_path}/row.bin", b"row")
    Files(run.filesystem).put(f"{tmp_path}/row.bin", b"rows")
    assert _mode(tmp_path / "row.bin") == 0o640
