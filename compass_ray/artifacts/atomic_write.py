"""Atomic writes of local files, hashed while they are written.

Content goes to a temporary file next to the target. When the last byte is on disk, the temporary file is renamed to the target.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from compass_ray.artifacts.errors import ArtifactError
from compass_ray.artifacts.private_files import PRIVATE_FILE

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
        ArtifactError: the disk is full; an existing file is unchanged.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = PRIVATE_FILE if private else _PUBLIC_FILE
    try:
        with (
            open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream,
            raise_if_disk_full(str(path), stream),
        ):
            sink = _HashingWriter(stream)
            fill(sink)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return sink.result()


def _create(path: Path, mode: int) -> IO[bytes]:
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode))


@contextmanager
def raise_if_disk_full(path: str, stream: IO[bytes]) -> Iterator[None]:
    """Raise an ArtifactError with the remedy if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ArtifactError(
            f"no space left to write {path} (after {stream.tell()} bytes); free space and run again, complete artifacts are kept"
        ) from None
