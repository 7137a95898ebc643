"""Files on any filesystem that pyarrow supports: atomic writes, hashes and retries.

A reader sees a complete file or none: a local file is renamed into place, and an object store shows an object only when it is
complete. A put always writes the complete file, so it can be repeated. Memory does not grow with the size of a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pyarrow import fs as pafs

from compass_ray.artifacts.atomic_write import ContentWriter, WriteResult, atomic_write
from compass_ray.artifacts.retries import Result, Sleep, retry, to_user_error
from compass_ray.artifacts.write_errors import explain_delete_errors, explain_write_errors

_CHUNK = 16 << 20
"""Bytes of one write to an object store; one part of the upload."""
_WAIT_S = 1.0
"""Seconds between a failed request and another one for the same data."""
_IN_MEMORY = 64 << 20
"""Maximum bytes of a file buffered in memory before its upload; larger files are buffered on disk."""


class Files:
    """Files of one filesystem by path."""

    def __init__(self, filesystem: pafs.FileSystem, sleep: Sleep = time.sleep) -> None:
        """Store the filesystem without accessing it; ``sleep`` waits between two attempts."""
        self.filesystem = filesystem
        self.local = isinstance(filesystem, pafs.LocalFileSystem)
        self._sleep = sleep

    def with_retries(self, work: Callable[[], Result], path: str) -> Result:
        """Result of ``work``; on an object store with retries and explained errors (see `retry`)."""
        return work() if self.local else retry(work, path, self._sleep)

    def wait(self) -> None:
        """Wait before a failed request is replaced by another one."""
        self._sleep(_WAIT_S)

    def write(self, path: str, fill: ContentWriter, *, private: bool = False) -> WriteResult:
        """Write a file in one step. A ``private`` file has mode 0600 on a local disk.

        Raises:
            ArtifactError: the disk is full, or the store refuses or fails.
        """
        if self.local:
            return atomic_write(Path(path), fill, private=private)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
            with explain_write_errors(f"a temporary copy of {path} in {tempfile.gettempdir()}", spool.tell):
                fill(spool)  # type: ignore[arg-type]
            return self._put(path, spool)

    def put(self, path: str, data: bytes, *, private: bool = False) -> WriteResult:
        """Write a file in one step from memory; see `write`."""
        if self.local:
            return atomic_write(Path(path), lambda stream: stream.write(data), private=private)
        return self._put(path, io.BytesIO(data))

    def copy(self, source: Path, path: str) -> WriteResult:
        """Write a file in one step from a local file."""
        with source.open("rb") as stream:
            if self.local:
                return atomic_write(Path(path), lambda sink: shutil.copyfileobj(stream, sink, _CHUNK))
            return self._put(path, stream)

    def read(self, path: str) -> bytes:
        """The file's content.

        Raises:
            FileNotFoundError: the file does not exist.
            ArtifactError: the store refuses or fails.
        """

        def read_all() -> bytes:
            with self.filesystem.open_input_file(path) as stream:
                data, size = bytes(stream.read()), stream.size()
            if len(data) != size:
                raise OSError(f"only {len(data)} of {size} bytes were received")
            return data

        return self.with_retries(read_all, path)

    def sha256(self, path: str) -> str:
        """SHA-256 of a file's content, hexadecimal."""

        def hash_all() -> str:
            digest, read = hashlib.sha256(), 0
            with self.filesystem.open_input_file(path) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    read += len(chunk)
                if read != stream.size():
                    raise OSError(f"only {read} of {stream.size()} bytes were received")
            return digest.hexdigest()

        return self.with_retries(hash_all, path)

    def size(self, path: str) -> int | None:
        """Size of a file in bytes; None if it does not exist."""
        info = self.with_retries(lambda: self.filesystem.get_file_info(path), path)
        return int(info.size) if info.type == pafs.FileType.File else None

    def list_recursive(self, folder: str) -> dict[str, int]:
        """Size in bytes of every file below a folder, by path relative to the folder."""
        infos = self._list_infos(folder, recursive=True)
        return {f.path[len(folder) + 1 :]: int(f.size) for f in infos if f.type == pafs.FileType.File}

    def etags(self, folder: str) -> dict[str, tuple[int, int]]:
        """Size in bytes and modification time (ns) of every file in a folder, by name, in one request.

        Two changes within one tick of the store's clock, which may be a second, can give equal values.
        """
        infos = self._list_infos(folder, recursive=False)
        return {f.base_name: (int(f.size), int(f.mtime_ns or 0)) for f in infos if f.type == pafs.FileType.File}

    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        if self.filesystem.type_name == "gcs":  # it lists only folders with a marker object, and not every folder has one
            return sorted({path.partition("/")[0] for path in self.list_recursive(folder) if "/" in path})
        return sorted(f.base_name for f in self._list_infos(folder, recursive=False) if f.type == pafs.FileType.Directory)

    def make_folder(self, folder: str) -> None:
        """Create a folder and its parents if they do not exist."""
        with explain_write_errors(folder):
            self.with_retries(lambda: self.filesystem.create_dir(folder, recursive=True), folder)

    def delete(self, path: str) -> None:
        """Delete a file if it exists."""
        with contextlib.suppress(FileNotFoundError), explain_delete_errors(path):
            self.with_retries(lambda: self.filesystem.delete_file(path), path)

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and its content if it exists."""

        def delete() -> None:
            if self.filesystem.get_file_info(folder).type == pafs.FileType.Directory:
                self.filesystem.delete_dir(folder)

        # an object store may lack the marker object of a folder
        with contextlib.suppress(FileNotFoundError), explain_delete_errors(folder):
            self.with_retries(delete, folder)

    def _list_infos(self, folder: str, *, recursive: bool) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        return list(self.with_retries(lambda: self.filesystem.get_file_info(selector), folder))

    def _put(self, path: str, source: IO[bytes]) -> WriteResult:
        try:
            return self.with_retries(lambda: self._upload(path, source), path)
        except FileNotFoundError as error:  # Cloud Storage raises this if the bucket does not exist
            raise to_user_error(OSError(f"NOT_FOUND: {error}"), path) from None

    def _upload(self, path: str, source: IO[bytes]) -> WriteResult:
        source.seek(0)
        digest, size = hashlib.sha256(), 0
        try:
            with self.filesystem.open_output_stream(path, compression=None) as stream:
                while chunk := source.read(_CHUNK):
                    stream.write(chunk)
                    stream.flush()  # writes run in the background, and only flush waits for them
                    digest.update(chunk)
                    size += len(chunk)
        except BaseException as error:
            if not (isinstance(error, OSError) and error.errno is None):  # no store error: closing published a partial object
                with contextlib.suppress(OSError):
                    self.filesystem.delete_file(path)
            raise
        return WriteResult(size, digest.hexdigest())
