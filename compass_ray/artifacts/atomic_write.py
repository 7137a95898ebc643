"""Atomic writes of local files, hashed while they are written.

Content goes to a temporary file next to the target. When the last byte is on disk, the temporary file is renamed to the target.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from compass_ray.artifacts.private_files import PRIVATE_FILE
from compass_ray.artifacts.write_errors import explain_write_errors

PARTIAL = ".partial"
_PUBLIC_FILE = 0o666
"""Before the umask."""
ContentWriter = Callable[[BinaryIO], object]
"""Function that writes a file's complete content into a stream, sequentially."""


@dataclass(frozen=True)
class WriteResult:
    """Size in bytes and hexadecimal SHA-256 of a written file."""

    bytes: int
    sha256: str


class _HashingWriter(io.RawIOBase):
    """A stream that hashes and counts the bytes that it passes on to another stream."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self._digest, self._size = sink, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._sink.write(view)
        self._digest.update(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        return self._size

    def result(self) -> WriteResult:
        return WriteResult(self._size, self._digest.hexdigest())


def atomic_write(path: Path, fill: ContentWriter, *, private: bool = False) -> WriteResult:
    """Create or replace a file in one step. A ``private`` file has mode 0600, otherwise the umask decides.

    Raises:
        ArtifactError: the system refuses the write, for example because the disk is full; an existing file is unchanged.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    mode, written = PRIVATE_FILE if private else _PUBLIC_FILE, 0
    with explain_write_errors(path, lambda: written):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _create(partial, mode) as stream:
                sink = _HashingWriter(stream)
                try:
                    fill(sink)  # type: ignore[arg-type]
                finally:
                    written = sink.tell()
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    return sink.result()


def _create(path: Path, mode: int) -> IO[bytes]:
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode))
