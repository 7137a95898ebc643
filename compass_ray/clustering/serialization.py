"""Fitted clusterers on disk: arrays in one npz without pickle, and a mark that says what wrote them.

Key property: the mark holds the SHA-256 of the arrays' file, so arrays that were damaged, changed or taken from another
clusterer are refused rather than answered from.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compass_ray.clustering.protocol import Clusterer
from compass_ray.models.errors import ModelError

HEADER_FILE = "clusterer.json"
ARRAYS_FILE = "clusterer.npz"
FORMAT = "compass-ray clusterer"
VERSION = 2

_UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile say of a file that is no npz, or no longer one."""


def save_arrays(folder: Path, kind: str, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write arrays first and the mark last."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / ARRAYS_FILE, **arrays)
    mark = {"format": FORMAT, "version": VERSION, "kind": kind, "settings": dict(settings), "arrays": sorted(arrays)}
    (folder / HEADER_FILE).write_text(json.dumps(mark | {"sha256": _sha256(folder / ARRAYS_FILE)}, indent=2), "utf-8")


def read_setting(settings: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A stored setting of one of these types.

    Raises:
        KeyError: it is not there.
        TypeError: it is something else.
    """
    if not isinstance(settings[name], kind):
        raise TypeError(f"a usable {name} (it is {settings[name]!r})")
    return settings[name]


def load_clusterer(folder: str | Path) -> Clusterer:
    """Read a clusterer that `Clusterer.save` wrote.

    Raises:
        ModelError: it is missing, damaged, or something else wrote it.
    """
    kinds, mark = _loaders_by_kind(), _read_header(Path(folder))
    kind = mark.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ModelError(f"{folder} holds a clusterer of kind {kind!r}; known: {', '.join(sorted(kinds))}")
    arrays = _read_arrays(Path(folder), mark)
    try:
        return kinds[kind](dict(mark["settings"]), arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{Path(folder) / HEADER_FILE} is damaged: it lacks {error}; run the cluster stage again") from None


def _loaders_by_kind() -> dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Clusterer]]:
    from compass_ray.clustering.butina import ButinaClusterer
    from compass_ray.clustering.hdbscan import HdbscanClusterer
    from compass_ray.clustering.kmeans import KMeansClusterer
    from compass_ray.clustering.ward import WardClusterer

    return {kind.kind: kind.from_arrays for kind in (ButinaClusterer, HdbscanClusterer, KMeansClusterer, WardClusterer)}


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        mark = json.loads((folder / HEADER_FILE).read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no clusterer: it lacks {HEADER_FILE}; run the cluster stage first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / HEADER_FILE} is damaged ({error}); run the cluster stage again") from None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT:
        raise ModelError(f"{folder / HEADER_FILE} was not written by compass_ray; run the cluster stage again")
    if mark.get("version") != VERSION:
        raise ModelError(
            f"{folder / HEADER_FILE} has version {mark.get('version')!r} of the format, and this compass_ray reads {VERSION}; "
            f"use the compass_ray that wrote it, or run the cluster stage again"
        )
    return mark


def _read_arrays(folder: Path, mark: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / ARRAYS_FILE
    try:
        if _sha256(path) != mark.get("sha256"):
            raise ModelError(
                f"{path} is damaged: it is not the file that {HEADER_FILE} was written for; run the cluster stage again"
            )
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in mark["arrays"]}
    except ModelError:
        raise
    except _UNREADABLE as error:
        raise ModelError(f"{path} or {HEADER_FILE} is damaged or missing ({error}); run the cluster stage again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest()
