"""Append-only JSON Lines files of a run's monitor folder.

Key property: when `append` returns, the records are on disk; a process killed while it writes leaves at
most one torn last line, which readers skip and the next append steps over. On a local disk several
processes may append to one file, each call being one ``O_APPEND`` write. An object store has no append: the
file is read and put again, so there one writer at a time owns a file that it calls `append` on, and writers
that share one call `append_shared`, for one request more. It is not a database: whoever reads, reads the
whole file, and `rewrite` keeps it short.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs

from compass_ray.artifacts import RunDir

JsonRecord = dict[str, Any]


def append(run: RunDir, file: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Add records to the end of the file; durable on return."""
    if not records:
        return
    lines = _encode(records)
    if isinstance(run.filesystem, pafs.LocalFileSystem):
        _append_local(Path(run.artifact("monitor").path) / file, lines)
    else:
        run.write_monitor(file, _end_with_newline(run.read_monitor(file) or b"") + lines)


def append_shared(run: RunDir, file: str, records: Sequence[Mapping[str, Any]]) -> None:
    """As `append`, and nothing is lost where other processes append to the same file of an object store meanwhile."""
    if not records or isinstance(run.filesystem, pafs.LocalFileSystem):
        append(run, file, records)
    else:
        lines = _encode(records)
        run.extend_monitor(file, lambda before: _end_with_newline(before) + lines)


def read(run: RunDir, file: str) -> list[JsonRecord]:
    """All whole records of the file in order; none where it was never written."""
    found = run.read_monitor(file) or b""
    return [record for line in found.splitlines() if (record := _parse(line)) is not None]


def rewrite(run: RunDir, file: str, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace the file in one step. Only its one writer may do this."""
    run.write_monitor(file, _encode(records))


def _append_local(path: Path, lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, b"\n" + lines if torn else lines)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _end_with_newline(data: bytes) -> bytes:
    return data + b"\n" if data and not data.endswith(b"\n") else data


def _encode(records: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()


def _parse(line: bytes) -> JsonRecord | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
