"""The run directory: artefacts, their manifests and fingerprints, and atomic publication.

Key property: an artefact is whole if and only if its ``manifest.json`` is there. The manifest is written last, by
rename on a local disk and by one put on an object store, so a process killed at any moment leaves either the whole
artefact or something that no reader takes for one. A fingerprint is a check on a human-readable path, never the path.
This is the only module that knows file names; it holds no algorithm and starts nothing.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compass_ray import __version__
from compass_ray.config import ConfigError, RunConfig

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
FIRST_VERSION = "v0001"
_BEGUN = "begun.json"
_RECORD = "run.json"


class ArtifactError(RuntimeError):
    """An artefact that is missing, damaged, or made by another configuration."""


class FingerprintMismatchError(ArtifactError):
    """A whole artefact stands where a different one was asked for."""


class Output(BaseModel):
    """One file of an artefact: path below it, size in bytes, hash, and rows where it is a table."""

    model_config = ConfigDict(frozen=True)
    path: str
    bytes: int
    sha256: str
    rows: int | None = None


class Manifest(BaseModel):
    """The commit mark of an artefact and the record of how it came to be."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = SCHEMA_VERSION
    stage: str
    fingerprint: str
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)


def version_of(config: RunConfig, method: str) -> str:
    """The served method's adapters start the line of versions; the others are named after their method."""
    return FIRST_VERSION if method == config.serve.method else method


@dataclass(frozen=True)
class Identity:
    """What an artefact is made of: its stage, the settings that shape it and the fingerprints of its inputs."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of the three parts, 16 hexadecimal digits."""
        return content_hash(self.stage, _canonical(dict(self.config)), _canonical(dict(self.inputs)))


def content_hash(*parts: str) -> str:
    """A 16-digit hexadecimal hash of texts, unambiguous about where one ends and the next begins.

    >>> content_hash("ab", "c") == content_hash("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


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
            f"{self.name} was made with other settings: {_differences(found, identity)}. Give a new --run, "
            f"or make it anew with --force {identity.stage}"
        )

    def begin(self, identity: Identity, *, keep_partial: bool = False) -> Writer:
        """Start to write. What an unfinished attempt left is removed, or kept if it was for the same identity."""
        begun = self.read_json(_BEGUN) if self.exists(_BEGUN) else None
        if not (keep_partial and self.manifest() is None and begun == identity.fingerprint):
            self.remove()
            self.filesystem.create_dir(self.path, recursive=True)
            _put(self.filesystem, f"{self.path}/{_BEGUN}", json.dumps(identity.fingerprint).encode())
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
        return sorted(n for n in names if n not in (MANIFEST, _BEGUN) and not n.endswith(_PARTIAL))

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
        """The ``.npy`` file as an array, memory-mapped where the run is local."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            return np.asarray(np.load(f"{self.path}/{file}", mmap_mode="r", allow_pickle=False))
        return self.read_array(file)

    def read_embeddings(self) -> np.ndarray:
        """The vectors of all parts, float32 (n, d)."""
        column = self.read_parts()["embedding"].combine_chunks()
        return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1)

    def store_table(self, file: str, table: pa.Table, *, row_group: int | None = None) -> None:
        """Write one Parquet file of an artefact that is being made; workers use it, the driver publishes."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=row_group, compression="zstd")
        _put(self.filesystem, f"{self.path}/{file}", buffer.getvalue())

    def store_bytes(self, file: str, data: bytes) -> None:
        """Write one file of an artefact that is being made."""
        _put(self.filesystem, f"{self.path}/{file}", data)

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
            if not self.exists(output.path) or _sha256(self.filesystem, f"{self.path}/{output.path}") != output.sha256:
                raise ArtifactError(f"{self.path}/{output.path} is damaged or missing; remove {self.path} and run again")
        return manifest

    @contextmanager
    def local(self) -> Iterator[Path]:
        """A local folder with the artefact's files: the artefact itself, or a copy for as long as it is used."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            yield Path(self.path)
            return
        with tempfile.TemporaryDirectory(prefix="compass-ray-") as folder:
            pafs.copy_files(self.path, folder, source_filesystem=self.filesystem)
            yield Path(folder)


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
            config=json.loads(_canonical(dict(self.identity.config))),
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
        return Output(path=file, bytes=size, sha256=_sha256(filesystem, path), rows=rows)


class RunDir:
    """A run directory, local or on an object store, and the names of everything in it."""

    def __init__(self, uri: str) -> None:
        """Reach the directory.

        Args:
            uri: a local path, or a URI such as ``s3://bucket/run``.

        Raises:
            ConfigError: a URI that pyarrow cannot reach.
        """
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().resolve())
        if "://" not in uri and Path(self.uri).is_file():
            raise ConfigError(f"--run {uri!r} is a file; give a folder, which need not be there yet, or a URI")
        try:
            self.filesystem, path = pafs.FileSystem.from_uri(self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(f"--run {uri!r}: {error}; give a local path or a URI such as s3://bucket/run") from None
        self.path = path.rstrip("/")

    def __reduce__(self) -> tuple[type[RunDir], tuple[str]]:
        """Travel to workers as the URI alone."""
        return (RunDir, (self.uri,))

    def artifact(self, *parts: str) -> Artifact:
        """The artefact at a path below the run."""
        name = "/".join(parts)
        return Artifact(self.filesystem, f"{self.path}/{name}", name)

    @property
    def pool(self) -> Artifact:
        """``rows.parquet`` (tables.POOL) and ``rejected.parquet`` (tables.REJECTED)."""
        return self.artifact("pool")

    def guide(self, language: str) -> Artifact:
        """``guide.parquet`` (tables.GUIDES) and ``test.parquet`` (tables.ITEMS)."""
        return self.artifact("guides", language)

    @property
    def embeddings(self) -> Artifact:
        """``part-*.parquet`` (tables.embeddings) of the pool."""
        return self.artifact("embeddings", "pool")

    def guide_embeddings(self, language: str) -> Artifact:
        """``part-00000.parquet`` (tables.embeddings) of one guide set."""
        return self.artifact("embeddings", "guides", language)

    @property
    def clusters(self) -> Artifact:
        """The fitted clusterer, ``assignments.parquet`` (tables.ASSIGNMENTS), ``centroids.npy``, ``sweep.json``."""
        return self.artifact("clusters")

    def selection(self, method: str, language: str) -> Artifact:
        """``rows.parquet`` (tables.SELECTED) and ``allocation.json``."""
        return self.artifact("selections", method, language)

    def adapter(self, language: str, version: str) -> Artifact:
        """A PEFT directory, ``history.json``, ``reference.json`` and, where served, anchors and Fisher."""
        return self.artifact("adapters", language, version)

    def update(self, language: str, version: str) -> Artifact:
        """``gate.json``: what the promotion gate measured of an update, and its verdict."""
        return self.artifact("updates", language, version)

    def change(self, language: str, version: str) -> Artifact:
        """``results.json``: accuracy on old and new subjects before and after an update, where it was measured."""
        return self.artifact("changes", language, version)

    def evaluation(self, method: str, language: str) -> Artifact:
        """``items.parquet`` (tables.SCORED) and ``results.json``."""
        return self.artifact("evaluations", method, language)

    @property
    def report(self) -> Artifact:
        """``index.html`` and its pictures as PNG."""
        return self.artifact("report")

    def adapter_versions(self, language: str) -> list[str]:
        """Versions of a language's adapters, whole ones only, sorted."""
        return [v for v in self._folders("adapters", language) if self.adapter(language, v).manifest()]

    def live(self, language: str) -> dict[str, Any] | None:
        """The live pointer of a language: ``version`` and ``fingerprint`` of the adapter that is served."""
        found = self._read(f"serving/live/{language}.json")
        return None if found is None else json.loads(found)

    def set_live(self, language: str, pointer: Mapping[str, Any]) -> None:
        """Replace the live pointer in one step."""
        self._write(f"serving/live/{language}.json", json.dumps(pointer, indent=2).encode())

    def clear_live(self, language: str) -> None:
        """Remove the live pointer; the router falls back."""
        self.filesystem.delete_file(f"{self.path}/serving/live/{language}.json")

    def read_monitor(self, file: str) -> bytes | None:
        """A file of the monitor's state, None before it was first written."""
        return self._read(f"monitor/{file}")

    def write_monitor(self, file: str, data: bytes) -> None:
        """Replace a file of the monitor's state in one step."""
        self._write(f"monitor/{file}", data)

    def record(self, config: RunConfig) -> None:
        """Keep the configuration of the run beside its artefacts."""
        self.write_record(config.model_dump_json(indent=2).encode())

    def read_record(self) -> bytes | None:
        """The kept configuration as it is written, None where there is no run."""
        return self._read(_RECORD)

    def write_record(self, data: bytes) -> None:
        """Put back a configuration that `read_record` gave."""
        self._write(_RECORD, data)

    def recorded(self) -> RunConfig:
        """The configuration that the run was last given.

        Raises:
            ArtifactError: there is no run here.
        """
        found = self.read_record()
        if found is None:
            raise ArtifactError(f"there is no run in {self.uri}; make one with 'compass-ray adapt --run {self.uri}'")
        try:
            return RunConfig.model_validate_json(found)
        except ValidationError as error:
            raise ArtifactError(
                f"{self.uri}/run.json is damaged or of another version ({error.error_count()} problems); "
                f"run 'compass-ray adapt --run {self.uri}' with the run's settings to write it again"
            ) from None

    def _folders(self, *parts: str) -> list[str]:
        base = "/".join((self.path, *parts))
        found = self.filesystem.get_file_info(pafs.FileSelector(base, allow_not_found=True))
        return sorted(f.base_name for f in found if f.type == pafs.FileType.Directory)

    def _read(self, file: str) -> bytes | None:
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{file}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def _write(self, file: str, data: bytes) -> None:
        _put(self.filesystem, f"{self.path}/{file}", data)


_PARTIAL = ".partial"


def _put(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
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
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(filesystem: pafs.FileSystem, path: str) -> str:
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _differences(found: Manifest, identity: Identity) -> str:
    old, new = _flat({**found.config, **found.inputs}), _flat({**identity.config, **identity.inputs})
    keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    shown = [f"{key} was {old.get(key, 'unset')}, is {new.get(key, 'unset')}" for key in keys[:5]]
    return "; ".join(shown) or f"it was written by schema version {found.schema_version}, this is {SCHEMA_VERSION}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in json.loads(_canonical(dict(tree))).items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _canonical(value)
    return flat
