"""Files of one artifact directory: tables, arrays, JSON and bytes on any filesystem that pyarrow supports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from compass_ray.artifacts.artifact_reader import ArtifactReader
from compass_ray.artifacts.atomic_write import PARTIAL, WriteResult
from compass_ray.artifacts.manifest import MANIFEST, Output
from compass_ray.artifacts.retries import Sleep
from compass_ray.schemas import WITH_OPTIONS

IN_PROGRESS_FILE = "begun.json"


@dataclass(frozen=True)
class InProgressMarker:
    """An unfinished attempt at an artifact: its fingerprint and start time (UTC, ISO 8601)."""

    fingerprint: str
    started: str


class ArtifactFiles(ArtifactReader):
    """The files of one artifact directory of a run."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, name: str, *, sleep: Sleep = time.sleep) -> None:
        """Reference ``path`` without reading or creating it. ``sleep`` waits between retries of a store."""
        super().__init__(filesystem, path, name, sleep=sleep)
        self._written: dict[str, Output] = {}

    def read_in_progress_marker(self) -> InProgressMarker | None:
        """The marker of the unfinished or finished attempt; None if there is none."""
        try:
            return InProgressMarker(**json.loads(self.read_bytes(IN_PROGRESS_FILE)))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """Delete the artifact, its manifest first, so that no reader takes a partial artifact for a complete one."""
        self._files.delete(f"{self.path}/{MANIFEST}")
        self._files.delete_folder(self.path)
        self._written.clear()
        self.__dict__.pop("_outputs", None)

    def files(self) -> list[str]:
        """Paths of the artifact's files relative to it, sorted, without manifest and marker."""
        return sorted(self._sizes())

    def _sizes(self) -> dict[str, int]:
        sizes = self._files.list_recursive(self.path).items()
        return {n: size for n, size in sizes if n not in (MANIFEST, IN_PROGRESS_FILE) and not n.endswith(PARTIAL)}

    def read_embeddings(self) -> np.ndarray:
        """The embeddings of all parts, float32 (n, d)."""
        return _vectors(self.read_parts(["embedding"]), "embedding")

    def read_guide_vectors(self) -> np.ndarray:
        """The vectors float32 (n, d) of a guide set as selection reads them: with options where `embed.guide_options` is set."""
        table = self.read_parts(["embedding"], optional=(WITH_OPTIONS,))
        return _vectors(table, WITH_OPTIONS if WITH_OPTIONS in table.column_names else "embedding")

    def store_table(self, file: str, table: pa.Table, *, row_group: int | None = None, private: bool = False) -> Output:
        """Write one Parquet file of an unpublished artifact. Workers write; the driver publishes (see `add_outputs`)."""
        fill = lambda sink: pq.write_table(  # noqa: E731
            table, sink, row_group_size=row_group, compression="zstd", write_page_checksum=True
        )
        written = self._files.write(self.file_path(file), fill, private=private)
        return self._record_output(file, written, rows=table.num_rows)

    def add_outputs(self, outputs: Iterable[Output]) -> None:
        """Record files that workers wrote, so that publishing does not read them."""
        self._written |= {output.path: output for output in outputs}

    def store_mappable(self, file: str, table: pa.Table) -> None:
        """Write one Arrow file for `map_table`."""

        def fill(stream: BinaryIO) -> None:
            with pa.ipc.new_file(stream, table.schema) as sink:
                sink.write_table(table.combine_chunks())

        self._record_output(file, self._files.write(self.file_path(file), fill))

    def store_array(self, file: str, array: np.ndarray) -> None:
        """Write one ``.npy`` file of an unpublished artifact."""
        self._record_output(file, self._files.write(self.file_path(file), lambda sink: np.save(sink, array, allow_pickle=False)))

    def store_bytes(self, file: str, data: bytes) -> None:
        """Write one file of an unpublished artifact."""
        self._record_output(file, self._files.put(self.file_path(file), data))

    def store_file(self, file: str, source: Path) -> None:
        """Copy a local file of any size into an unpublished artifact."""
        self._record_output(file, self._files.copy(source, self.file_path(file)))

    def _record_output(self, file: str, written: WriteResult, rows: int | None = None) -> Output:
        """Record a written file, so that publishing does not read it again."""
        self._written[file] = Output(path=file, bytes=written.bytes, sha256=written.sha256, rows=rows)
        return self._written[file]

    def outputs(self) -> tuple[Output, ...]:
        """Every file as a manifest entry; files that this object has not recorded are read and hashed."""
        return tuple(self._output(file, size) for file, size in sorted(self._sizes().items()))

    def _output(self, file: str, size: int) -> Output:
        known, path = self._written.get(file), self.file_path(file)
        if not known or known.bytes != size:
            known = Output(path=file, bytes=size, sha256=self._files.sha256(path))
        if known.rows is None and file.endswith(".parquet"):
            read = lambda: pq.read_metadata(path, filesystem=self.filesystem).num_rows  # noqa: E731
            with self._translated(file):
                known = known.model_copy(update={"rows": self._files.with_retries(read, path)})
        return known

    def drop(self, file: str) -> None:
        """Remove a file of an unpublished artifact, if it exists."""
        self._written.pop(file, None)
        self._files.delete(self.file_path(file))

    def read_parts(self, columns: list[str] | None = None, optional: tuple[str, ...] = ()) -> pa.Table:
        """All ``part-*.parquet`` files as one table, in order of their names; columns as in `read_table`."""
        manifest = self.manifest()
        files = [output.path for output in manifest.outputs] if manifest else self.files()
        parts = [file for file in files if file.startswith("part-")]
        if not parts:
            raise self.missing("part-00000.parquet")
        return pa.concat_tables([self.read_table(part, columns, optional) for part in parts])


def _vectors(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1)


def utc_timestamp() -> str:
    """The current UTC time, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
