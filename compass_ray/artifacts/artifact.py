"""One artefact directory: read, begun, written and published.

Key property: an artefact is whole if and only if its ``manifest.json`` is there, and that is written last.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs
from pydantic import ValidationError

from compass_ray.artifacts.atomic_write import PARTIAL, WriteResult
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    ArtifactError,
    FingerprintMismatchError,
    Identity,
    Manifest,
    Output,
    describe_fingerprint_diff,
)
from compass_ray.artifacts.retries import Sleep
from compass_ray.artifacts.writer import InProgressMarker, Writer, utc_timestamp

_IN_PROGRESS_FILE = "begun.json"


class Artifact:
    """One artefact directory of a run, on any filesystem that pyarrow reaches."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, name: str, *, sleep: Sleep = time.sleep) -> None:
        """Point at ``path``; nothing is read or made. ``sleep`` waits before a store is asked again."""
        self.filesystem = filesystem
        self.path = path
        self.name = name
        self._files = Files(filesystem, sleep)
        self._written: dict[str, Output] = {}

    def manifest(self) -> Manifest | None:
        """The manifest, or None where the artefact is not whole.

        Raises:
            ArtifactError: a manifest that cannot be read.
        """
        try:
            return Manifest.model_validate_json(self.read_bytes(MANIFEST))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ArtifactError(
                f"{self.path}/{MANIFEST} is damaged ({error.error_count()} problems); remove {self.path} and run again"
            ) from None

    def require(self) -> Manifest:
        """The manifest of an artefact that must be whole.

        Raises:
            ArtifactError: it is not.
        """
        found = self.manifest()
        if found is None:
            raise ArtifactError(f"{self.name} is missing below this run; run 'compass-ray adapt' for it first")
        return found

    def find_complete(self, identity: Identity, *, force: bool = False) -> Manifest | None:
        """The manifest if this very artefact is whole, None if it is to be made.

        Raises:
            FingerprintMismatchError: another one stands here; with ``force`` it is made anew in any case.
        """
        found = self.manifest()
        if found is None or force:
            return None
        if found.fingerprint == identity.fingerprint and found.schema_version == SCHEMA_VERSION:
            return found
        raise FingerprintMismatchError(
            f"{self.name} was made with other settings: {describe_fingerprint_diff(found, identity)}. Give a new --run, "
            f"or make it anew with --force {identity.stage}"
        )

    def begin(self, identity: Identity, *, keep_partial: bool = False) -> Writer:
        """Start to write. What an unfinished attempt left is removed, or kept if it was for the same identity."""
        begun = self.read_in_progress_marker()
        if not (keep_partial and begun and self.manifest() is None and begun.fingerprint == identity.fingerprint):
            self.remove()
            self._files.make_folder(self.path)
            mark = {"fingerprint": identity.fingerprint, "started": utc_timestamp()}
            self._files.put(f"{self.path}/{_IN_PROGRESS_FILE}", json.dumps(mark).encode())
        return Writer(self, identity)

    def read_in_progress_marker(self) -> InProgressMarker | None:
        """What the attempt that stands here is to become and since when, None before any."""
        try:
            return InProgressMarker(**self.read_json(_IN_PROGRESS_FILE))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """Delete the artefact, its manifest first, so that no reader ever takes a half for a whole."""
        self._files.delete(f"{self.path}/{MANIFEST}")
        self._files.delete_folder(self.path)
        self._written.clear()

    def exists(self, file: str) -> bool:
        """Whether the file is there."""
        return self._files.size(f"{self.path}/{file}") is not None

    def files(self) -> list[str]:
        """Paths of the artefact's own files below it, sorted; not the manifest."""
        return sorted(self._sizes())

    def _sizes(self) -> dict[str, int]:
        found = self._files.list_recursive(self.path).items()
        return {n: size for n, size in found if n not in (MANIFEST, _IN_PROGRESS_FILE) and not n.endswith(PARTIAL)}

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
        """The ``.npy`` file as an array whose pages are read when they are touched."""
        with self._mappable_path(file) as path:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))

    def map_table(self, file: str) -> pa.Table:
        """The Arrow file as a table whose pages are read when they are touched."""
        with self._mappable_path(file) as path, pa.memory_map(path) as source:
            return pa.ipc.open_file(source).read_all()

    def read_embeddings(self) -> np.ndarray:
        """The vectors of all parts, float32 (n, d)."""
        column = self.read_parts()["embedding"].combine_chunks()
        return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1)

    def store_table(self, file: str, table: pa.Table, *, row_group: int | None = None) -> Output:
        """Write one Parquet file of an artefact that is being made; workers use it, the driver publishes (see `take`)."""
        written = self._files.write(
            f"{self.path}/{file}", lambda sink: pq.write_table(table, sink, row_group_size=row_group, compression="zstd")
        )
        return self._record_output(file, written, rows=table.num_rows)

    def add_outputs(self, outputs: Iterable[Output]) -> None:
        """Know what workers wrote, so that publishing need not read it."""
        self._written |= {output.path: output for output in outputs}

    def store_mappable(self, file: str, table: pa.Table) -> None:
        """Write one Arrow file, which `map_table` reads without parsing it."""

        def fill(stream: BinaryIO) -> None:
            with pa.ipc.new_file(stream, table.schema) as sink:
                sink.write_table(table.combine_chunks())

        self._record_output(file, self._files.write(f"{self.path}/{file}", fill))

    def store_array(self, file: str, array: np.ndarray) -> None:
        """Write one ``.npy`` file of an artefact that is being made."""
        self._record_output(file, self._files.write(f"{self.path}/{file}", lambda sink: np.save(sink, array, allow_pickle=False)))

    def store_bytes(self, file: str, data: bytes) -> None:
        """Write one file of an artefact that is being made."""
        self._record_output(file, self._files.put(f"{self.path}/{file}", data))

    def store_file(self, file: str, source: Path) -> None:
        """Bring one of this machine's files into an artefact that is being made, however large."""
        self._record_output(file, self._files.copy(source, f"{self.path}/{file}"))

    def _record_output(self, file: str, written: WriteResult, rows: int | None = None) -> Output:
        """Remember what was written, so that publishing need not read it again."""
        self._written[file] = Output(path=file, bytes=written.bytes, sha256=written.sha256, rows=rows)
        return self._written[file]

    def outputs(self) -> tuple[Output, ...]:
        """Every file as a manifest names it; what this very object neither wrote nor took is read."""
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
        """Remove a file of an artefact that is being made, if it is there."""
        self._written.pop(file, None)
        self._files.delete(f"{self.path}/{file}")

    def read_parts(self, columns: list[str] | None = None) -> pa.Table:
        """All ``part-*.parquet`` files, in order of their numbers, as one table."""
        parts = [file for file in self.files() if file.startswith("part-")]
        return pa.concat_tables([self.read_table(part, columns) for part in parts])

    def verify(self) -> Manifest:
        """Check every file against the manifest.

        Raises:
            ArtifactError: a file is missing or its content has changed.
        """
        manifest = self.require()
        for output in manifest.outputs:
            if self._sha256(output.path) != output.sha256:
                raise ArtifactError(f"{self.path}/{output.path} is damaged or missing; remove {self.path} and run again")
        return manifest

    def _sha256(self, file: str) -> str | None:
        try:
            return self._files.sha256(f"{self.path}/{file}")
        except FileNotFoundError:
            return None

    @contextmanager
    def local_folder(self, *files: str) -> Iterator[Path]:
        """A local folder with the files named, all if none: the artefact itself, or a copy for as long as it is used."""
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
        """A path to map the file from: its own, or that of a copy on this disk, which lasts as long as it is mapped."""
        with self.local_folder(file) as folder:
            yield str(folder / file)
