"""Load a fitted clusterer of any method from its folder."""

from __future__ import annotations

from pathlib import Path

from compass_ray.clustering.butina import ButinaClusterer
from compass_ray.clustering.hdbscan import HdbscanClusterer
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.clustering.protocol import Clusterer
from compass_ray.clustering.serialization import HEADER_FILE, read_clusterer
from compass_ray.clustering.ward import WardClusterer
from compass_ray.models.errors import ModelError

_FROM_ARRAYS = {kind.kind: kind.from_arrays for kind in (ButinaClusterer, HdbscanClusterer, KMeansClusterer, WardClusterer)}
"""Constructor of each kind in a header."""


def load_clusterer(folder: str | Path) -> Clusterer:
    """Read a clusterer that `Clusterer.save` wrote.

    Raises:
        ModelError: a file is missing or damaged, or compass_ray did not write it.
    """
    header, arrays = read_clusterer(Path(folder))
    kind = header.get("kind")
    if not isinstance(kind, str) or kind not in _FROM_ARRAYS:
        raise ModelError(f"{folder} has a clusterer of unknown kind {kind!r}; expected one of {', '.join(sorted(_FROM_ARRAYS))}")
    try:
        return _FROM_ARRAYS[kind](dict(header["settings"]), arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{Path(folder) / HEADER_FILE} is damaged: it lacks {error}; remove {folder} and run again") from None
