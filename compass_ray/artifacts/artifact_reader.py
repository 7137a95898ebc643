"""Reader of the files of one artifact directory.

Key property: a file that is not what was written is never read silently. On a disk a file is first compared with the manifest:
its size, and its SHA-256 up to `_HASHED_BYTES`. An error of any decoder becomes one error that names file, artifact and remedy.
Object stores check their own content, so there only files that are copied to a disk are compared.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs
from pydantic import ValidationError

from compass_ray.artifacts.contained_path import links_out, require_contained
from compass_ray.artifacts.errors import ArtifactError, DamagedFileError, MissingFileError
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.manifest import MANIFEST, Manifest, Output
from compass_ray.artifacts.remedies import command_for
from compass_ray.artifacts.retries import Sleep
from compass_ray.artifacts.write_errors import temporary_folder

_HASHED_BYTES = 64 << 20
"""Maximum size of a file that is hashed before it is read, in 0.06 s of one core. `status --verify` hashes every file."""
_UNDECODABLE = (
    pa.ArrowException,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    EOFError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of decoders for content that they cannot read, beside an OSError without a number."""
_SCHEMES = {"s3": "s3://", "gcs": "gs://"}


class ArtifactReader:
    """The files of one artifact directory of a run, to be read."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, name: str, *, sleep: Sleep = time.sleep) -> None:
        """Reference ``path`` without reading or creating it. ``sleep`` waits between retries of a store."""
        self.filesystem = filesystem
        self.path = path
        self.name = name
        self._files = Files(filesystem, sleep)

    def manifest(self) -> Manifest | None:
        """The manifest; None if the artifact is not complete.

        Raises:
            DamagedFileError: the manifest is damaged.
        """
        try:
            return Manifest.parse(self.read_bytes(MANIFEST))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            reason = f"{error.error_count()} problems, the first: {error.errors()[0]['msg']}"
            raise self.damaged(MANIFEST, reason) from None
        except ValueError as error:
            raise self.damaged(MANIFEST, error) from None

    def damaged(self, file: str, reason: object) -> DamagedFileError:
        """The error for a file with other content than what was written."""
        return DamagedFileError(f"{self.path}/{file} is damaged ({reason}); {self._remedy()}")

    def missing(self, file: str) -> MissingFileError:
        """The error for a file that is not there."""
        return MissingFileError(f"{self.path}/{file} is missing; {self._remedy()}")

    def _remedy(self) -> str:
        run = _SCHEMES.get(self.filesystem.type_name, "") + self.path.removesuffix(f"/{self.name}")
        return f"remove {self.path} and run again: {command_for(self.name, run)}"

    def exists(self, file: str) -> bool:
        """Whether the file exists."""
        return self._files.size(self.file_path(file)) is not None

    def file_path(self, file: str) -> str:
        """Path of a file on the filesystem.

        Raises:
            ArtifactError: the name leads out of the artifact.
        """
        return f"{self.path}/{require_contained(file, self.path)}"

    def read_bytes(self, file: str) -> bytes:
        """The file's content."""
        return self._files.read(self.file_path(file))

    def read_json(self, file: str, parse: Callable[[Any], Any] = lambda value: value) -> Any:
        """The file's content as JSON, passed through ``parse``.

        Raises:
            DamagedFileError: it is no JSON, or ``parse`` raises ValueError.
        """
        with self.decoding(file):
            return parse(json.loads(self.read_bytes(file)))

    def read_table(self, file: str, columns: list[str] | None = None, optional: tuple[str, ...] = ()) -> pa.Table:
        """The Parquet file as a table: all columns, or ``columns`` and those of ``optional`` that it has."""
        with self.decoding(file):
            if self._files.local:
                return _read_parquet(self.file_path(file), columns, optional, self.filesystem)
            return self._read_remote_table(file, columns, optional)

    def row_groups(self, file: str) -> int:
        """Number of row groups of a Parquet file."""
        with self.decoding(file):
            return int(pq.read_metadata(self.file_path(file), filesystem=self.filesystem).num_row_groups)

    def read_row_group(self, file: str, group: int, columns: list[str]) -> pa.Table:
        """One row group of a Parquet file. Its pages are checked by their checksums, not by the manifest."""
        with self._translated(file):
            path = self.file_path(file)
            with pq.ParquetFile(path, filesystem=self.filesystem, page_checksum_verification=True) as content:
                table = content.read_row_group(group, columns=columns)
                if table.num_rows != (rows := content.metadata.row_group(group).num_rows):
                    raise ValueError(f"{table.num_rows} of {rows} rows of row group {group} can be read")
                return table

    def _read_remote_table(self, file: str, columns: list[str] | None, optional: tuple[str, ...]) -> pa.Table:
        """Read the ranges of the columns. An error may be the store's or the decoder's: reading the complete file decides."""
        try:
            return _read_parquet(self.file_path(file), columns, optional, self.filesystem)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException):
            self._files.wait()
            return _read_parquet(pa.BufferReader(self.read_bytes(file)), columns, optional)

    def read_array(self, file: str) -> np.ndarray:
        """The ``.npy`` file as an array."""
        with self.decoding(file):
            return np.asarray(np.lib.format.read_array(io.BytesIO(self.read_bytes(file)), allow_pickle=False))

    def map_array(self, file: str) -> np.ndarray:
        """The ``.npy`` file as a memory-mapped array."""
        with self.decoding(file), self._mappable_path(file) as path:
            return np.asarray(np.lib.format.open_memmap(path, mode="r"))

    def map_table(self, file: str) -> pa.Table:
        """The Arrow file as a memory-mapped table."""
        with self.decoding(file), self._mappable_path(file) as path, pa.memory_map(path) as source:
            return pa.ipc.open_file(source).read_all()

    @contextmanager
    def decoding(self, file: str) -> Iterator[None]:
        """Compare a file with the manifest, then turn errors of its decoder into one that names it.

        Raises:
            DamagedFileError: the file has not the content that was written.
            MissingFileError: the file does not exist.
        """
        self.check(file)
        with self._translated(file):
            yield

    @contextmanager
    def _translated(self, file: str) -> Iterator[None]:
        try:
            yield
        except ArtifactError:
            raise
        except FileNotFoundError:
            raise self.missing(file) from None
        except _UNDECODABLE as error:
            raise self.damaged(file, _first_line(error)) from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise self.damaged(file, _first_line(error)) from None

    def check(self, *files: str) -> None:
        """Compare files, or all outputs, with the manifest of a complete artifact on a disk.

        Raises:
            DamagedFileError: a file has not the content that was written.
            MissingFileError: a file does not exist.
        """
        if self._files.local:
            self._check_in(self._files, self.path, files)

    def _check_in(self, copies: Files, folder: str, names: Sequence[str]) -> None:
        """Compare the files of these names, or all outputs, as they lie in a local folder."""
        for name in names or tuple(self._outputs):
            if output := self._outputs.get(require_contained(name, self.path)):
                self._compare_in(copies, folder, output, hashed=output.bytes <= _HASHED_BYTES)

    def compare(self, output: Output, *, hashed: bool = True) -> None:
        """Compare one file with its entry in the manifest: size, links, and SHA-256 if ``hashed``.

        Raises:
            DamagedFileError: the file has not the content that was written.
            MissingFileError: the file does not exist.
        """
        self._compare_in(self._files, self.path, output, hashed=hashed)

    def _compare_in(self, copies: Files, folder: str, output: Output, *, hashed: bool) -> None:
        path = f"{folder}/{require_contained(output.path, folder)}"
        size = copies.size(path)
        if size is None:
            raise self.missing(output.path)
        if copies.local and links_out(path, folder):
            raise self.damaged(output.path, "it is a link that leads out of the artifact")
        if size != output.bytes:
            raise self.damaged(output.path, f"it has {size} bytes, and {output.bytes} were written")
        if hashed and copies.sha256(path) != output.sha256:
            raise self.damaged(output.path, "its SHA-256 differs from the manifest")

    @cached_property
    def _outputs(self) -> Mapping[str, Output]:
        """Outputs in the manifest by path; empty without a manifest."""
        manifest = self.manifest()
        return {output.path: output for output in manifest.outputs} if manifest else {}

    @contextmanager
    def local_folder(self, *files: str) -> Iterator[Path]:
        """A local folder with the given files, or all: the artifact itself, or a temporary copy."""
        if self._files.local:
            self.check(*files)
            yield Path(self.path)
            return
        with temporary_folder() as folder:
            for name in files or ("",):
                self._download(name, folder)
            self._check_in(Files(pafs.LocalFileSystem()), str(folder), files)
            yield folder

    def _download(self, name: str, folder: Path) -> None:
        source = self.file_path(name) if name else self.path
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = lambda: pafs.copy_files(source, str(folder / name), source_filesystem=self.filesystem)  # noqa: E731
        self._files.with_retries(copy, source)

    @contextmanager
    def _mappable_path(self, file: str) -> Iterator[str]:
        """A local path to map the file from: its own, or that of a copy that exists as long as it is mapped."""
        with self.local_folder(file) as folder:
            yield str(folder / file)


def _read_parquet(
    source: Any, columns: list[str] | None, optional: tuple[str, ...] = (), filesystem: pafs.FileSystem | None = None
) -> pa.Table:
    """The table. Pages are compared with their checksums, and a damaged page header may hide rows.

    Raises:
        ValueError: rows are missing.
        KeyError: a column is missing.
    """
    with pq.ParquetFile(source, filesystem=filesystem, pre_buffer=True, page_checksum_verification=True) as file:
        if columns is not None:
            columns = [*columns, *(name for name in optional if name in file.schema_arrow.names)]
        table = file.read(columns)
        if table.num_rows != file.metadata.num_rows:
            raise ValueError(f"{table.num_rows} of {file.metadata.num_rows} rows can be read")
        return table if columns is None else table.select(columns)


def _first_line(error: BaseException) -> str:
    """The reason in one line, without numpy's advice to load pickled objects."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "it is no array of numbers" if "pickle" in line else line
