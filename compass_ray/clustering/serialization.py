"""Store fitted clusterers: arrays in one npz file without pickle, and a JSON header.

The header has the SHA-256 of the npz file, so damaged or replaced arrays are rejected.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compass_ray.models.errors import ModelError

HEADER_FILE = "clusterer.json"
ARRAYS_FILE = "clusterer.npz"
FORMAT = "compass-ray clusterer"
VERSION = 2

_UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""Errors that numpy and zipfile raise for a file that is not a valid npz."""


def save_arrays(folder: Path, kind: str, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write the arrays, then the header."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / ARRAYS_FILE, **arrays)
    header = {"format": FORMAT, "version": VERSION, "kind": kind, "settings": dict(settings), "arrays": sorted(arrays)}
    (folder / HEADER_FILE).write_text(json.dumps(header | {"sha256": _sha256(folder / ARRAYS_FILE)}, indent=2), "utf-8")


def read_setting(settings: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A stored setting of one of these types.

    Raises:
        KeyError: it is missing.
        TypeError: it has another type.
    """
    if not isinstance(settings[name], kind):
        raise TypeError(f"a usable {name} (it is {settings[name]!r})")
    return settings[name]


def read_clusterer(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the arrays that `save_arrays` wrote.

    Raises:
        ModelError: a file is missing or damaged, or compass_ray did not write it.
    """
    header = _read_header(folder)
    return header, _read_arrays(folder, header)


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / HEADER_FILE).read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no clusterer: {HEADER_FILE} is missing; run the cluster stage first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / HEADER_FILE} is damaged ({error}); remove {folder} and run again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelError(f"{folder / HEADER_FILE} was not written by compass_ray; remove {folder} and run again")
    if header.get("version") != VERSION:
        raise ModelError(
            f"{folder / HEADER_FILE} has format version {header.get('version')!r}, but this compass_ray reads {VERSION}; "
            f"use the compass_ray version that wrote it, or remove {folder} and run again"
        )
    return header


def _read_arrays(folder: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / ARRAYS_FILE
    try:
        if _sha256(path) != header.get("sha256"):
            raise ModelError(f"{path} is damaged: its checksum differs from {HEADER_FILE}; remove {folder} and run again")
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in header["arrays"]}
    except ModelError:
        raise
    except _UNREADABLE as error:
        raise ModelError(f"{path} or {HEADER_FILE} is damaged or missing ({error}); remove {folder} and run again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest()
