"""Files of one artifact directory: tables, arrays, JSON and bytes on any filesystem that pyarrow supports."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from compass_ray.artifacts.atomic_write import PARTIAL, WriteResult
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.manifest import MANIFEST, Output
from compass_ray.artifacts.retries import Sleep

IN_PROGRESS_FILE = "begun.json"


@dataclass(frozen=True)
class InProgressMarker:
    """An unfinished attempt at an artifact: its fingerprint and start time (UTC, ISO 8601)."""

    fingerprint: str
    started: str


class ArtifactFiles:
    """The files of one artifact directory of a run."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, name: str, *, sleep: Sleep = time.sleep) -> None:
        """Reference ``path`` without reading or creating it. ``sleep`` waits between retries of a store."""
        self.filesystem = filesystem
        self.path = path
        self.name = name
        self._files = Files(filesystem, sleep)
        self._written: dict[str, Output] = {}

    def read_in_progress_marker(self) -> InProgressMarker | None:
        """The marker of the unfinished or finished attempt; None if there is none."""
        try:
            return InProgressMarker(**self.read_json(IN_PROGRESS_FILE))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """Delete the artifact, its manifest first, so that no reader takes a partial artifact for a complete one."""
        self._files.delete(f"{self.path}/{MANIFEST}")
        self._files.delete_folder(self.path)
        self._written.clear()

    def exists(self, file: str) -> bool:
        """Whether the file exists."""
        return self._files.size(f"{self.path}/{file}") is not None

    def files(self) -> list[str]:
        """Paths of the artifact's files relative to it, sorted, without manifest and marker."""
        return sorted(self._sizes())

    def _sizes(self) -> dict[str, int]:
        sizes = self._files.list_recursive(self.path).items()
        return {n: size for n, size in sizes if n not in (MANIFEST, IN_PROGRESS_FILE) and not n.endswith(PARTIAL)}

    def read_bytes(self, file: str) -> bytes:
        """The file's content."""
        return self._files.read(f"{self.path}/{file}")

    def read_json(self, file: str) -> Any:
        """The file's content as JSON."""
        return json.loads(self.read_bytes(file))

    def read_table(self, file: str, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file as a table."""
        path = f"{self.path}/{file}"
        return self._files.with_retries(lambda: pq.read_table(path, filesystem=self.filesystem, columns=columns), path)

    def read_array(self, file: str) -> np.ndarray:
        """The ``.npy`` file as an array."""
        return np.asarray(np.load(io.BytesIO(self.read_bytes(file)), allow_pickle=False))

    def map_array(self, file: str) -> np.ndarray:
        """The ``.npy`` file as a memory-mapped array."""
        with self._mappable_path(file) as path:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))

    def map_table(self, file: str) -> pa.Table:
        """The Arrow file as a memory-mapped table."""
        with self._mappable_path(file) as path, pa.memory_map(path) as source:
            return pa.ipc.open_file(source).read_all()

    def read_embeddings(self) -> np.ndarray:
        """The embeddings of all parts, float32 (n, d)."""
        column = self.read_parts()["embedding"].combine_chunks()
        return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1)

    def store_table(self, file: str, table: pa.Table, *, row_group: int | None = None, private: bool = False) -> Output:
        """Write one Parquet file of an unpublished artifact. Workers write; the driver publishes (see `add_outputs`)."""
        fill = lambda sink: pq.write_table(table, sink, row_group_size=row_group, compression="zstd")  # noqa: E731
        written = self._files.write(f"{self.path}/{file}", fill, private=private)
        return self._record_output(file, written, rows=table.num_rows)

    def add_outputs(self, outputs: Iterable[Output]) -> None:
        """Record files that workers wrote, so that publishing does not read them."""
        self._written |= {output.path: output for output in outputs}

    def store_mappable(self, file: str, table: pa.Table) -> None:
        """Write one Arrow file for `map_table`."""

        def fill(stream: BinaryIO) -> None:
            with pa.ipc.new_file(stream, table.schema) as sink:
                sink.write_table(table.combine_chunks())

        self._record_output(file, self._files.write(f"{self.path}/{file}", fill))

    def store_array(self, file: str, array: np.ndarray) -> None:
        """Write one ``.npy`` file of an unpublished artifact."""
        self._record_output(file, self._files.write(f"{self.path}/{file}", lambda sink: np.save(sink, array, allow_pickle=False)))

    def store_bytes(self, file: str, data: bytes) -> None:
        """Write one file of an unpublished artifact."""
        self._record_output(file, self._files.put(f"{self.path}/{file}", data))

    def store_file(self, file: str, source: Path) -> None:
        """Copy a local file of any size into an unpublished artifact."""
        self._record_output(file, self._files.copy(source, f"{self.path}/{file}"))

    def _record_output(self, file: str, written: WriteResult, rows: int | None = None) -> Output:
        """Record a written file, so that publishing does not read it again."""
        self._written[file] = Output(path=file, bytes=written.bytes, sha256=written.sha256, rows=rows)
        return self._written[file]

    def outputs(self) -> tuple[Output, ...]:
        """Every file as a manifest entry; files that this object has not recorded are read and hashed."""
        return tuple(self._output(file, size) for file, size in sorted(self._sizes().items()))

    def _output(self, file: str, size: int) -> Output:
        known, path = self._written.get(file), f"{self.path}/{file}"
        if not known or known.bytes != size:
            known = Output(path=file, bytes=size, sha256=self._files.sha256(path))
        if known.rows is None and file.endswith(".parquet"):
            read = lambda: pq.read_metadata(path, filesystem=self.filesystem).num_rows  # noqa: E731
            known = known.model_copy(update={"rows": self._files.with_retries(read, path)})
        return known

    def drop(self, file: str) -> None:
        """Remove a file of an unpublished artifact, if it exists."""
        self._written.pop(file, None)
        self._files.delete(f"{self.path}/{file}")

    def read_parts(self, columns: list[str] | None = None) -> pa.Table:
        """All ``part-*.parquet`` files as one table, in order of their names."""
        parts = [file for file in self.files() if file.startswith("part-")]
        return pa.concat_tables([self.read_table(part, columns) for part in parts])

    @contextmanager
    def local_folder(self, *files: str) -> Iterator[Path]:
        """A local folder with the given files, or all: the artifact itself, or a temporary copy."""
        if self._files.local:
            yield Path(self.path)
            return
        with tempfile.TemporaryDirectory(prefix="compass-ray-") as folder:
            for name in files or ("",):
                self._download(name, folder)
            yield Path(folder)

    def _download(self, name: str, folder: str) -> None:
        source = f"{self.path}/{name}".rstrip("/")
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        copy = lambda: pafs.copy_files(source, f"{folder}/{name}", source_filesystem=self.filesystem)  # noqa: E731
        self._files.with_retries(copy, source)

    @contextmanager
    def _mappable_path(self, file: str) -> Iterator[str]:
        """A local path to map the file from: its own, or that of a copy that exists as long as it is mapped."""
        with self.local_folder(file) as folder:
            yield str(folder / file)


def utc_timestamp() -> str:
    """The current UTC time, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
