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
    from compass_ray.models.clusterers.density import DensityClusterer
    from compass_ray.models.clusterers.kmeans import KMeansClusterer

    kinds: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Clusterer]]
    kinds = {DensityClusterer.kind: DensityClusterer.of, KMeansClusterer.kind: KMeansClusterer.of}
    mark = _mark(Path(folder))
    if mark.get("kind") not in kinds:
        raise ModelError(f"{folder} holds a clusterer of kind {mark.get('kind')!r}; known: {', '.join(sorted(kinds))}")
    return kinds[mark["kind"]](mark["settings"], _arrays(Path(folder), mark["arrays"]))


def _mark(folder: Path) -> dict[str, Any]:
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no clusterer: it lacks {MARK}; run the cluster stage first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder / MARK} is damaged ({error}); run the cluster stage again") from None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT or mark.get("version") != VERSION:
        raise ModelError(f"{folder / MARK} was not written by this version of compass_ray; run the cluster stage again")
    return mark


def _arrays(folder: Path, names: list[str]) -> dict[str, Any]:
    try:
        with np.load(folder / ARRAYS, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{folder / ARRAYS} is damaged or missing ({error}); run the cluster stage again") from None
