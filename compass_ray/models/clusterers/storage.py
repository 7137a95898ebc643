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

from compass_ray.models.clusterers.protocol import Clusterer
from compass_ray.models.errors import ModelError

MARK = "clusterer.json"
ARRAYS = "clusterer.npz"
FORMAT = "compass-ray clusterer"
VERSION = 2

_UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile say of a file that is no npz, or no longer one."""


def save_arrays(folder: Path, kind: str, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write arrays first and the mark last."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / ARRAYS, **arrays)
    mark = {"format": FORMAT, "version": VERSION, "kind": kind, "settings": dict(settings), "arrays": sorted(arrays)}
    (folder / MARK).write_text(json.dumps(mark | {"sha256": _sha256(folder / ARRAYS)}, indent=2), "utf-8")


def setting(settings: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
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
    kinds, mark = _kinds(), _mark(Path(folder))
    kind = mark.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ModelError(f"{folder} holds a clusterer of kind {kind!r}; known: {', '.join(sorted(kinds))}")
    arrays = _arrays(Path(folder), mark)
    try:
        return kinds[kind](dict(mark["settings"]), arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{Path(folder) / MARK} is damaged: it lacks {error}; run the cluster stage again") from None


def _kinds() -> dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Clusterer]]:
    from compass_ray.models.clusterers.butina import ButinaClusterer
    from compass_ray.models.clusterers.density import DensityClusterer
    from compass_ray.models.clusterers.kmeans import KMeansClusterer
    from compass_ray.models.clusterers.ward import WardClusterer

    return {kind.kind: kind.of for kind in (ButinaClusterer, DensityClusterer, KMeansClusterer, WardClusterer)}


def _mark(folder: Path) -> dict[str, Any]:
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no clusterer: it lacks {MARK}; run the cluster stage first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / MARK} is damaged ({error}); run the cluster stage again") from None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT:
        raise ModelError(f"{folder / MARK} was not written by compass_ray; run the cluster stage again")
    if mark.get("version") != VERSION:
        raise ModelError(
            f"{folder / MARK} has version {mark.get('version')!r} of the format, and this compass_ray reads {VERSION}; "
            f"use the compass_ray that wrote it, or run the cluster stage again"
        )
    return mark


def _arrays(folder: Path, mark: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / ARRAYS
    try:
        if _sha256(path) != mark.get("sha256"):
            raise ModelError(f"{path} is damaged: it is not the file that {MARK} was written for; run the cluster stage again")
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in mark["arrays"]}
    except ModelError:
        raise
    except _UNREADABLE as error:
        raise ModelError(f"{path} or {MARK} is damaged or missing ({error}); run the cluster stage again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest()
