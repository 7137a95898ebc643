"""Append-only JSON Lines files of a run's monitor folder.

When `append` returns, the records are on disk. A process killed during a write leaves at most one incomplete last line;
readers skip it and the next append starts a new line.

- Local disk: several processes may append to one file; each call is one ``O_APPEND`` write.
- Object store: the file is read and put again. `append` needs one writer per file; writers that share a file use
  `append_shared`, at the cost of one more request.

Reading always reads the complete file; `rewrite` keeps it short.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs
from pydantic import TypeAdapter, ValidationError

from compass_ray.artifacts import RunDir
from compass_ray.artifacts.private_files import PRIVATE_FILE, restrict_file
from compass_ray.artifacts.write_errors import explain_write_errors

JsonRecord = dict[str, Any]
_SHOWN_DEPTH = 2
"""Parts of the place of an error that are shown, such as kind and field. A deeper part may be a key, that is content."""


def append(run: RunDir, file: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Append records to the file; they are on disk on return.

    Raises:
        ArtifactError: the system refuses the write, for example because the disk is full.
    """
    if not records:
        return
    lines = _encode(records)
    if isinstance(run.filesystem, pafs.LocalFileSystem):
        run.make_monitor_folder(file)
        _append_local(Path(run.artifact("monitor").path) / file, lines)
    else:
        run.write_monitor(file, _end_with_newline(run.read_monitor(file) or b"") + lines)


def append_shared(run: RunDir, file: str, records: Sequence[Mapping[str, Any]]) -> None:
    """As `append`, but safe if other processes append to the same file of an object store at the same time."""
    if not records or isinstance(run.filesystem, pafs.LocalFileSystem):
        append(run, file, records)
    else:
        lines = _encode(records)
        run.extend_monitor(file, lambda before: _end_with_newline(before) + lines)


def read(run: RunDir, file: str) -> list[JsonRecord]:
    """All complete records of the file in order; none if the file does not exist."""
    data = run.read_monitor(file) or b""
    return [record for line in data.splitlines() if (record := _parse(line)) is not None]


def size(record: Mapping[str, Any]) -> int:
    """Bytes of a record in a file."""
    return len(_encode([record]))


@dataclass(frozen=True)
class RejectedLine:
    """A damaged line: its number from 1, why it is damaged (without its content), and its content."""

    number: int
    reason: str
    content: bytes


@dataclass(frozen=True)
class ValidatedLines:
    """The records of a file with the number of their line, and its damaged lines."""

    records: list[tuple[int, JsonRecord]]
    rejected: list[RejectedLine]


def read_valid(run: RunDir, file: str, line: TypeAdapter[Any], *, strict: bool = True) -> ValidatedLines:
    """The records of the file that ``line`` accepts, and the lines that are no such record. Empty lines are ignored."""
    records, rejected = list[tuple[int, JsonRecord]](), list[RejectedLine]()
    for number, text in enumerate((run.read_monitor(file) or b"").splitlines(), 1):
        if not text.strip():
            continue
        try:
            line.validate_json(text, strict=strict)
            record = json.loads(text)
            json.dumps(record, allow_nan=False)  # the file may be rewritten
        except (ValueError, RecursionError) as error:
            rejected.append(RejectedLine(number, _reason(error), text))
        else:
            records.append((number, record))
    return ValidatedLines(records, rejected)


def _reason(error: ValueError | RecursionError) -> str:
    if not isinstance(error, ValidationError):
        return type(error).__name__
    problem = error.errors(include_url=False, include_input=False)[0]
    return ".".join(map(str, (*problem["loc"][:_SHOWN_DEPTH], problem["type"])))


def rewrite(run: RunDir, file: str, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace the file in one step; only its single writer may do this."""
    run.write_monitor(file, _encode(records))


def _append_local(path: Path, lines: bytes) -> None:
    with explain_write_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        try:
            restrict_file(descriptor)
            size = os.fstat(descriptor).st_size
            incomplete = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_all(descriptor, b"\n" + lines if incomplete else lines)
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
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
