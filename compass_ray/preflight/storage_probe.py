"""What one machine finds of the run directory: whether it can write, read and remove there, and what others wrote.

Key property: whether machines meet in the run directory is tried, not guessed from its name: the driver leaves a file
that each of them looks for. Nothing is left behind, not even a folder that was not there.
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

_CONTENT = b"written by a check, to be removed by it"
_COMPARED_PACKAGES = ("compass-ray", "torch", "transformers")


@dataclass(frozen=True)
class StorageProbe:
    """What one machine found: an error where it cannot write, read or remove there, and whether it sees the driver's file."""

    machine: str
    error: str = ""
    sees_driver: bool = True
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of packages that must not differ between the driver and its workers."""


def probe_storage(run: RunDir, left_by_driver: str | None = None) -> StorageProbe:
    """Write, read and remove a file in the run directory, and look for the one that the driver has left."""
    seen = True
    try:
        seen = left_by_driver is None or run.filesystem.get_file_info(left_by_driver).type == pafs.FileType.File
        with driver_marker_file(run) as mine, run.filesystem.open_input_stream(mine) as stream:
            error = "" if stream.read() == _CONTENT else "what was written does not come back"
    except OSError as failed:
        error = str(failed).splitlines()[0]
    return StorageProbe(
        socket.gethostname(), error, seen, {name: importlib.metadata.version(name) for name in _COMPARED_PACKAGES}
    )


@contextmanager
def driver_marker_file(run: RunDir) -> Iterator[str]:
    """The path of a file that is in the run directory as long as the block runs.

    Raises:
        OSError: it cannot be written.
    """
    made = _create_folders(run)
    path = f"{run.path}/probe-{uuid.uuid4().hex}"
    try:
        with run.filesystem.open_output_stream(path) as stream:
            stream.write(_CONTENT)
        yield path
    finally:
        with suppress(OSError):
            run.filesystem.delete_file(path)
        for folder in made:
            with suppress(OSError):  # somebody else's by now
                folder.rmdir()


def _create_folders(run: RunDir) -> list[Path]:
    """Folders made on a local disk for the run, the innermost first; an object store has none."""
    if not isinstance(run.filesystem, pafs.LocalFileSystem):
        return []
    path = Path(run.path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing
