"""Fitted clusterers on disk: arrays in one npz without pickle, and a mark that says what wrote them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compass_ray.models.clusterers.protocol import Clusterer
from compass_ray.models.errors import ModelError

MARK = "clusterer.json"
ARRAYS = "clusterer.npz"
FORMAT = "compass-ray clusterer"
VERSION = 1


def save_arrays(folder: Path, kind: str, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write arrays first and the mark last."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / ARRAYS, **arrays)
    mark = {"format": FORMAT, "version": VERSION, "kind": kind, "settings": dict(settings), "arrays": sorted(arrays)}
    (folder / MARK).write_text(json.dumps(mark, indent=2), "utf-8")


def load_clusterer(folder: str | Path) -> Clusterer:
    """Read a clusterer that `Clusterer.save` wrote.

    Raises:
        ModelError: it is missing, damaged, or something else wrote it.
    """
    kinds, mark = _kinds(), _mark(Path(folder))
    if mark.get("kind") not in kinds:
        raise ModelError(f"{folder} holds a clusterer of kind {mark.get('kind')!r}; known: {', '.join(sorted(kinds))}")
    try:
        return kinds[mark["kind"]](mark["settings"], _arrays(Path(folder), mark["arrays"]))
    except (KeyError, TypeError) as error:
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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder / MARK} is damaged ({error}); run the cluster stage again") from None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT:
        raise ModelError(f"{folder / MARK} was not written by compass_ray; run the cluster stage again")
    if mark.get("version") != VERSION:
        raise ModelError(
            f"{folder / MARK} has version {mark.get('version')!r} of the format, and this compass_ray reads {VERSION}; "
            f"use the compass_ray that wrote it, or run the cluster stage again"
        )
    return mark


def _arrays(folder: Path, names: list[str]) -> dict[str, Any]:
    try:
        with np.load(folder / ARRAYS, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{folder / ARRAYS} is damaged or missing ({error}); run the cluster stage again") from None
