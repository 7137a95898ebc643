"""One artefact directory: read, begun, written and published.

Key property: an artefact is whole if and only if its ``manifest.json`` is there, and that is written last.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs
from pydantic import ValidationError

from compass_ray import __version__
from compass_ray.artifacts.files import PARTIAL, put, sha256_of
from compass_ray.artifacts.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    ArtifactError,
    FingerprintMismatchError,
    Identity,
    Manifest,
    Output,
    canonical,
    differences,
)

_BEGUN = "begun.json"


class Artifact:
    """One artefact directory of a run, on any filesystem that pyarrow reaches."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, name: str) -> None:
        """Point at ``path``; nothing is read or made."""
        self.filesystem = filesystem
        self.path = path
        self.name = name

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

    def done(self, identity: Identity, *, force: bool = False) -> Manifest | None:
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
            f"{self.name} was made with other settings: {differences(found, identity)}. Give a new --run, "
            f"or make it anew with --force {identity.stage}"
        )

    def begin(self, identity: Identity, *, keep_partial: bool = False) -> Writer:
        """Start to write. What an unfinished attempt left is removed, or kept if it was for the same identity."""
        begun = self.read_json(_BEGUN) if self.exists(_BEGUN) else None
        if not (keep_partial and self.manifest() is None and begun == identity.fingerprint):
            self.remove()
            self.filesystem.create_dir(self.path, recursive=True)
            put(self.filesystem, f"{self.path}/{_BEGUN}", json.dumps(identity.fingerprint).encode())
        return Writer(self, identity)

    def remove(self) -> None:
        """Delete the artefact, its manifest first, so that no reader ever takes a half for a whole."""
        if self.exists(MANIFEST):
            self.filesystem.delete_file(f"{self.path}/{MANIFEST}")
        if self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path)

    def exists(self, file: str) -> bool:
        """Whether the file is there."""
        return bool(self.filesystem.get_file_info(f"{self.path}/{file}").type == pafs.FileType.File)

    def files(self) -> list[str]:
        """Paths of the artefact's own files below it, sorted; not the manifest."""
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        found = [f.path for f in self.filesystem.get_file_info(selector) if f.type == pafs.FileType.File]
        names = [path[len(self.path) + 1 :] for path in found]
        return sorted(n for n in names if n not in (MANIFEST, _BEGUN) and not n.endswith(PARTIAL))

    def read_bytes(self, file: str) -> bytes:
        """The file's content."""
        with self.filesystem.open_input_stream(f"{self.path}/{file}") as stream:
            return bytes(stream.read())

    def read_json(self, file: str) -> Any:
        """The file's content as JSON."""
        return json.loads(self.read_bytes(file))

    def read_table(self, file: str, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file as a table."""
        return pq.read_table(f"{self.path}/{file}", filesystem=self.filesystem, columns=columns)

    def read_array(self, file: str) -> np.ndarray:
        """The ``.npy`` file as an array."""
        return np.asarray(np.load(io.BytesIO(self.read_bytes(file)), allow_pickle=False))

    def map_array(self, file: str) -> np.ndarray:
        """The ``.npy`` file as an array whose pages are read when they are touched."""
        with self._mappable(file) as path:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))

    def map_table(self, file: str) -> pa.Table:
        """The Arrow file as a table whose pages are read when they are touched."""
        with self._mappable(file) as path, pa.memory_map(path) as source:
            return pa.ipc.open_file(source).read_all()

    def read_embeddings(self) -> np.ndarray:
        """The vectors of all parts, float32 (n, d)."""
        column = self.read_parts()["embedding"].combine_chunks()
        return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1)

    def store_table(self, file: str, table: pa.Table, *, row_group: int | None = None) -> None:
        """Write one Parquet file of an artefact that is being made; workers use it, the driver publishes."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=row_group, compression="zstd")
        put(self.filesystem, f"{self.path}/{file}", buffer.getvalue())

    def store_mappable(self, file: str, table: pa.Table) -> None:
        """Write one Arrow file, which `map_table` reads without parsing it."""
        buffer = io.BytesIO()
        with pa.ipc.new_file(buffer, table.schema) as sink:
            sink.write_table(table.combine_chunks())
        put(self.filesystem, f"{self.path}/{file}", buffer.getvalue())

    def store_bytes(self, file: str, data: bytes) -> None:
        """Write one file of an artefact that is being made."""
        put(self.filesystem, f"{self.path}/{file}", data)

    def drop(self, file: str) -> None:
        """Remove a file of an artefact that is being made."""
        if self.exists(file):
            self.filesystem.delete_file(f"{self.path}/{file}")

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
            if not self.exists(output.path) or sha256_of(self.filesystem, f"{self.path}/{output.path}") != output.sha256:
                raise ArtifactError(f"{self.path}/{output.path} is damaged or missing; remove {self.path} and run again")
        return manifest

    @contextmanager
    def local(self, *files: str) -> Iterator[Path]:
        """A local folder with the files named, all if none: the artefact itself, or a copy for as long as it is used."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            yield Path(self.path)
            return
        with tempfile.TemporaryDirectory(prefix="compass-ray-") as folder:
            for name in files or ("",):
                pafs.copy_files(f"{self.path}/{name}".rstrip("/"), f"{folder}/{name}", source_filesystem=self.filesystem)
            yield Path(folder)

    @contextmanager
    def _mappable(self, file: str) -> Iterator[str]:
        """A path to map the file from: its own, or that of a copy on this disk, which lasts as long as it is mapped."""
        with self.local(file) as folder:
            yield str(folder / file)


class Writer:
    """Writes one artefact; `publish` commits it."""

    def __init__(self, artifact: Artifact, identity: Identity) -> None:
        """Made by `Artifact.begin`."""
        self.artifact = artifact
        self.identity = identity

    def bytes(self, file: str, data: bytes) -> None:
        """Write a file whole."""
        self.artifact.store_bytes(file, data)

    def json(self, file: str, value: Any) -> None:
        """Write JSON that people can read."""
        self.bytes(file, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str).encode())

    def table(self, file: str, table: pa.Table, *, row_group: int | None = None) -> None:
        """Write a Parquet file."""
        self.artifact.store_table(file, table, row_group=row_group)

    def mappable(self, file: str, table: pa.Table) -> None:
        """Write an Arrow file."""
        self.artifact.store_mappable(file, table)

    def array(self, file: str, array: np.ndarray) -> None:
        """Write an ``.npy`` file."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self.bytes(file, buffer.getvalue())

    def folder(self, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` write files into a scratch folder, then bring them all into the artefact."""
        with tempfile.TemporaryDirectory(prefix="compass-ray-") as scratch:
            fill(Path(scratch))
            for path in sorted(Path(scratch).rglob("*")):
                if path.is_file():
                    self.bytes(path.relative_to(scratch).as_posix(), path.read_bytes())

    def publish(self, metrics: Mapping[str, Any] | None = None, **provenance: Any) -> Manifest:
        """Write the manifest: from here on the artefact is whole."""
        outputs = tuple(self._output(file) for file in self.artifact.files())
        manifest = Manifest(
            stage=self.identity.stage,
            fingerprint=self.identity.fingerprint,
            config=json.loads(canonical(dict(self.identity.config))),
            inputs=dict(self.identity.inputs),
            outputs=outputs,
            metrics=dict(metrics or {}),
            provenance={
                "version": __version__,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                **provenance,
            },
        )
        self.bytes(MANIFEST, manifest.model_dump_json(indent=2).encode())
        return manifest

    def _output(self, file: str) -> Output:
        path = f"{self.artifact.path}/{file}"
        filesystem = self.artifact.filesystem
        rows = pq.read_metadata(path, filesystem=filesystem).num_rows if file.endswith(".parquet") else None
        size = filesystem.get_file_info(path).size
        return Output(path=file, bytes=size, sha256=sha256_of(filesystem, path), rows=rows)
