"""Probe of the run directory from one machine: whether it can write, read and delete there, and sees the driver's file.

Key property: shared access is tested, not inferred from the path: the driver writes a file that each machine looks for. The
probe leaves no files and no new folders behind.
"""

from __future__ import annotations

import importlib.metadata
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts import RunDir
from compass_ray.artifacts.write_errors import describe_write_error

_CONTENT = b"temporary file of a compass-ray check"
_COMPARED_PACKAGES = ("compass-ray", "torch", "transformers")


@dataclass(frozen=True)
class StorageProbe:
    """Result on one machine: an error if it cannot write, read or delete, and whether it sees the driver's file."""

    machine: str
    error: str = ""
    sees_driver: bool = True
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of packages that must be equal on the driver and its workers."""
    remedy: str = ""
    """What to do about the error; empty if unknown."""


def probe_storage(run: RunDir, driver_file: str | None = None) -> StorageProbe:
    """Write, read and delete a file in the run directory, and look for the driver's file."""
    seen, remedy = True, ""
    try:
        seen = driver_file is None or run.filesystem.get_file_info(driver_file).type == pafs.FileType.File
        with driver_marker_file(run) as path, run.filesystem.open_input_stream(path) as stream:
            error = "" if stream.read() == _CONTENT else "a file reads back with different content"
    except OSError as failed:
        error, remedy = describe_write_error(failed)
    versions = {name: importlib.metadata.version(name) for name in _COMPARED_PACKAGES}
    return StorageProbe(socket.gethostname(), error, seen, versions, remedy)


@contextmanager
def driver_marker_file(run: RunDir) -> Iterator[str]:
    """Path of a temporary file in the run directory, deleted at the end of the block.

    Raises:
        OSError: the file cannot be written.
    """
    created = _create_folders(run)
    path = f"{run.path}/probe-{uuid.uuid4().hex}"
    try:
        with run.filesystem.open_output_stream(path) as stream:
            stream.write(_CONTENT)
        yield path
    finally:
        with suppress(OSError):
            run.filesystem.delete_file(path)
        for folder in created:
            with suppress(OSError):  # another process has used it since
                folder.rmdir()


def _create_folders(run: RunDir) -> list[Path]:
    """Create the run's folder on a local disk. Return the new folders, innermost first; none for an object store."""
    if not isinstance(run.filesystem, pafs.LocalFileSystem):
        return []
    path = Path(run.path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing
