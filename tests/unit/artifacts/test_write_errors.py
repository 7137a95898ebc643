"""A write that the system refuses is reported with path, reason and remedy, wherever it happens; earlier content stays."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest

from compass_ray.artifacts import ArtifactError, Identity, RunDir, Writer, jsonl_log
from compass_ray.artifacts.stage_timing import begin_attempt
from compass_ray.artifacts.write_errors import explain_folder_errors, explain_os_error, temporary_folder
from compass_ray.config import load_run_config
from compass_ray.evaluation.experiments.artifact_reuse import reuse_artifact
from compass_ray.report.selected_rows import write_rows
from compass_ray.training.fisher import save_fisher
from tests.unit.command_line import Command

IDENTITY = Identity("select", {}, {})
ROWS = pa.table({"row_id": ["a"]})
REFUSALS = {
    errno.ENOSPC: "no space left to write",
    errno.EDQUOT: "quota",
    errno.EROFS: "mount it for writing, or choose another folder",
    errno.EACCES: "give this user the permission",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
}
WRITES: dict[str, Callable[[RunDir], object]] = {
    "table": lambda run: run.pool.store_table("rows.parquet", ROWS),
    "arrow": lambda run: run.pool.store_mappable("rows.arrow", ROWS),
    "array": lambda run: run.pool.store_array("a.npy", np.zeros(3)),
    "bytes": lambda run: run.pool.store_bytes("x", b"1"),
    "begin": lambda run: run.pool.begin(IDENTITY),
    "publish": lambda run: Writer(run.pool, IDENTITY).publish(),
    "configuration": lambda run: run.write_config(load_run_config("atlas-test")),
    "pins": lambda run: run.write_pins(b"{}"),
    "pointer": lambda run: run.set_live("sw", {"version": "v0001"}),
    "pointer, compared": lambda run: run.replace_live("sw", {"version": "v0001"}, None),
    "journal": lambda run: jsonl_log.append(run, "traffic.jsonl", [{"a": 1}]),
    "journal, shared": lambda run: jsonl_log.append_shared(run, "traffic.jsonl", [{"a": 1}]),
    "journal, rewritten": lambda run: jsonl_log.rewrite(run, "traffic.jsonl", [{"a": 1}]),
    "monitor": lambda run: run.write_monitor("keeping.json", b"{}"),
    "times": lambda run: begin_attempt().store(run),
    "rows": lambda run: write_rows(ROWS, Path(run.path, "rows.csv")),
}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def _refuse(number: int, folder: str) -> Callable[..., Any]:
    """``os.open`` and ``os.mkdir`` of a filesystem that refuses every write below a folder."""

    def refuse(path: Any, *_: Any, **__: Any) -> NoReturn:
        raise OSError(number, os.strerror(number), os.fspath(path))

    return refuse


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("what", [name for name in WRITES if name not in ("begin", "rows")])
def test_every_write_names_path_and_remedy_if_no_folder_can_be_made(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, what: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", _refuse(number, run.path))
        with pytest.raises(ArtifactError, match=REFUSALS[number]) as raised:
            WRITES[what](run)
    assert run.path in str(raised.value)
    assert "; " in str(raised.value)


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("what", [name for name in WRITES if name not in ("begin", "rows")])
def test_every_write_names_path_and_remedy_if_no_file_can_be_opened(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, what: str, number: int
) -> None:
    for folder in ("pool", "serving/live", "monitor", "attempts"):
        Path(run.path, folder).mkdir(parents=True)
    opened = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return opened(path, flags, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(ArtifactError, match=REFUSALS[number]) as raised:
            WRITES[what](run)
    assert run.path in str(raised.value)
    assert [path for path in Path(run.path).rglob("*") if path.is_file()] == []


def test_a_rename_that_fails_leaves_the_earlier_content(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.set_live("sw", {"version": "v0001"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", _refuse(errno.EROFS, run.path))
        patch.setattr(os, "replace", _refuse(errno.EROFS, run.path))
        patch.setattr(Path, "replace", _refuse(errno.EROFS, run.path))
        with pytest.raises(ArtifactError, match=r"cannot write .*sw\.json \(Read-only file system\); mount it"):
            run.set_live("sw", {"version": "v0002"})
    assert run.live("sw") == {"version": "v0001"}
    assert list(Path(run.path).rglob("*.partial")) == []


def test_a_folder_that_cannot_be_replaced_by_a_reused_artifact_is_reported(run: RunDir, tmp_path: Path) -> None:
    writer = run.pool.begin(IDENTITY)
    writer.write_bytes("x", b"1")
    manifest = writer.publish()
    target = RunDir(str(tmp_path / "other")).pool
    Path(tmp_path, "other").write_text("a file where the variant should be")
    with pytest.raises(
        ArtifactError, match=r"cannot delete .*other/pool/manifest\.json \(Not a directory\); a part of this path is a file"
    ):
        reuse_artifact(target, run.pool, manifest)


# Temporary files.


class _RustError(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        _RustError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError(
            "[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0: file write failed"
        ),
    ],
)
def test_a_full_disk_for_temporary_files_names_the_folder_and_tmpdir(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = rf"no space left to write temporary files in {tmp_path}; .*TMPDIR sets"
    with pytest.raises(ArtifactError, match=told) as raised, temporary_folder():
        raise error
    assert raised.value.__cause__ is None
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_block_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), temporary_folder():
        raise PermissionError(errno.EACCES, "denied", "/elsewhere")
    with pytest.raises(ConnectionError), explain_folder_errors(tmp_path):
        raise ConnectionError("no route")


def test_no_folder_for_temporary_files_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", missing)
    with pytest.raises(ArtifactError, match=r"no folder for temporary files .*; set TMPDIR"), temporary_folder():
        pass


def test_an_unexplained_error_of_the_disk_gets_its_remedy_at_the_end(
    compass_ray: Command, monkeypatch: pytest.MonkeyPatch, run: RunDir
) -> None:
    """Such as that of a cache of a hub."""

    def full(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/model")

    monkeypatch.setattr(RunDir, "read_config", full)
    done = compass_ray(f"status {run.path}")
    assert done.code == 1
    assert "error: no space left to write /cache/model; free space and run again" in done.err
    long = OSError(errno.ENAMETOOLONG, "File name too long", "/x" * 2500)
    assert explain_os_error(long) == f"cannot use {'/x' * 150}... (File name too long); choose a folder with a shorter path"
    assert explain_os_error(FileNotFoundError(errno.ENOENT, "missing", "x")) is None
    assert explain_os_error(OSError("AWS Error")) is None


# A real disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem in memory of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small tmpfs needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(disk: Path) -> None:
    with Path(disk, "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("what", WRITES)
def test_a_disk_that_is_really_full_is_reported(small_disk: Path, what: str) -> None:
    run = RunDir(str(small_disk / "run"))
    run.write_config(load_run_config("atlas-test"))
    for folder in ("pool", "serving/live", "monitor", "attempts"):
        Path(run.path, folder).mkdir(parents=True)
    _fill(small_disk)
    before = run.read_config()
    with pytest.raises(ArtifactError, match=r"no space left to write .*; free space and run again"):
        WRITES[what](run)
    assert run.read_config() == before
    assert list(Path(run.path).rglob("*.partial")) == []


@pytest.mark.slow
def test_a_temporary_disk_that_is_really_full_is_reported(small_disk: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    for fill in (
        lambda folder: save_fisher(folder / "fisher.safetensors", {"a": torch.zeros(1 << 20)}),
        lambda folder: torch.save(torch.zeros(1 << 20), folder / "state.pt"),
        lambda folder: (folder / "x").write_bytes(bytes(2 << 20)) and None,
    ):
        with pytest.raises(ArtifactError, match=rf"no space left to write temporary files in {small_disk}.*TMPDIR"):
            run.pool.begin(IDENTITY).write_folder(fill)


@pytest.mark.slow
def test_a_read_only_disk_is_reported(small_disk: Path) -> None:
    run = RunDir(str(small_disk / "run"))
    run.write_config(load_run_config("atlas-test"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name, write in WRITES.items():
        with pytest.raises(ArtifactError, match=r"(Read-only file system\)|mount it for writing)") as raised:
            write(run)
        assert run.path in str(raised.value), name
