"""Writes the files of one artifact and commits it.

The manifest is written last. It records files, settings, inputs, software, and start and end time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray.artifacts.artifact_files import ArtifactFiles, utc_timestamp
from compass_ray.artifacts.manifest import MANIFEST, Identity, Manifest, canonical_json
from compass_ray.artifacts.provenance import collect_provenance
from compass_ray.artifacts.write_errors import temporary_folder
from compass_ray.redaction import redact_tree, redact_uris


class Writer:
    """Writes one artifact; `publish` commits it."""

    def __init__(self, artifact: ArtifactFiles, identity: Identity) -> None:
        """Write to an artifact that `Artifact.begin` has started."""
        self.artifact = artifact
        self.identity = identity
        self._started = utc_timestamp()

    def write_bytes(self, file: str, data: bytes) -> None:
        """Write a file."""
        self.artifact.store_bytes(file, data)

    def write_json(self, file: str, value: Any) -> None:
        """Write indented JSON."""
        self.write_bytes(file, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str).encode())

    def write_table(self, file: str, table: pa.Table, *, row_group: int | None = None, private: bool = False) -> None:
        """Write a Parquet file. A ``private`` file holds texts of users and has mode 0600 on a local disk."""
        self.artifact.store_table(file, table, row_group=row_group, private=private)

    def write_mappable(self, file: str, table: pa.Table) -> None:
        """Write an Arrow file."""
        self.artifact.store_mappable(file, table)

    def write_array(self, file: str, array: np.ndarray) -> None:
        """Write an ``.npy`` file."""
        self.artifact.store_array(file, array)

    def write_folder(self, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` write files into a temporary folder, then copy them into the artifact without loading them into memory."""
        with temporary_folder() as scratch:
            fill(scratch)
            for path in sorted(scratch.rglob("*")):
                if path.is_file():
                    self.artifact.store_file(path.relative_to(scratch).as_posix(), path)

    def publish(self, metrics: Mapping[str, Any] | None = None, **provenance: Any) -> Manifest:
        """Write the manifest, which makes the artifact complete.

        Args:
            metrics: measured results.
            provenance: how the artifact was made, such as ``seed`` and ``device``; it enters no fingerprint.
        """
        marker = self.artifact.read_in_progress_marker()
        manifest = Manifest(
            stage=self.identity.stage,
            fingerprint=self.identity.fingerprint,
            config=redact_uris(json.loads(canonical_json(dict(self.identity.config)))),
            inputs=dict(self.identity.inputs),
            outputs=self.artifact.outputs(),
            metrics=dict(metrics or {}),
            provenance=redact_tree(
                {
                    **collect_provenance(),
                    "started": marker.started if marker else self._started,
                    "finished": utc_timestamp(),
                    **provenance,
                }
            ),
        ).sealed()
        self.write_bytes(MANIFEST, manifest.model_dump_json(indent=2).encode())
        return manifest
