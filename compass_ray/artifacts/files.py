"""Files on any filesystem that pyarrow reaches: written in one step for readers, and hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts.manifest import ArtifactError

PARTIAL = ".partial"


def put(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
    """One step for readers: a rename on a local disk, one put on an object store."""
    try:
        if not isinstance(filesystem, pafs.LocalFileSystem):
            with filesystem.open_output_stream(path) as stream:
                stream.write(data)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _replace(Path(path), data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ArtifactError(
                f"no space left to write {path} ({len(data)} bytes); free some and run again: finished artefacts are kept"
            ) from None
        raise


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sha256_of(filesystem: pafs.FileSystem, path: str) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
