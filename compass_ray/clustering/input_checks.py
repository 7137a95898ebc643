"""Checks of embeddings and settings before clustering starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compass_ray.clustering.protocol import Float32
from compass_ray.config import ClusterConfig
from compass_ray.models.errors import ModelError

_REMEDY = {
    "hdbscan": "cluster.method=kmeans with smaller cluster.n_clusters",
    "kmeans": "smaller cluster.n_clusters",
    "ward": "smaller cluster.n_clusters",
}


def check_embeddings(embeddings: Float32, at_least: int, method: str) -> Float32:
    """The embeddings as contiguous float32[n, d].

    Raises:
        ModelError: there are NaN, zero rows, fewer rows than needed, or no two different rows.
    """
    rows = _check_rows(embeddings)
    if len(rows) < at_least:
        other = f", or set {_REMEDY[method]}" if method in _REMEDY else ""
        raise ModelError(
            f"there are {len(rows)} embedded rows, but clustering by {method} needs {at_least}; add more rows{other}"
        )
    if bool((rows == rows[0]).all()):
        raise ModelError(f"all {len(rows)} embeddings are identical; check the prompts and the encoder")
    return rows


def check_new_rows(embeddings: Float32, dimensions: int) -> Float32:
    """New rows as contiguous float32[n, d], for a clusterer that was fitted in ``dimensions`` dimensions.

    Raises:
        ModelError: the rows have another dimension, NaN, or only zeros.
    """
    rows = _check_rows(embeddings)
    if rows.shape[1] != dimensions:
        raise ModelError(
            f"embeddings have {rows.shape[1]} dimensions, but the clusterer was fitted with {dimensions}; "
            f"use the encoder of the pool's embeddings"
        )
    return rows


def _check_rows(embeddings: Float32) -> Float32:
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    if rows.ndim != 2:
        raise ModelError(f"embeddings have shape {rows.shape}; expected (rows, dimensions)")
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if bad.size:
        raise ModelError(f"{bad.size} embeddings have NaN or infinity, first in row {bad[0]}; embed them again")
    empty = np.flatnonzero(~rows.any(1))
    if empty.size:
        raise ModelError(
            f"{empty.size} embeddings are all zeros and have no direction, first in row {empty[0]}; embed them again"
        )
    return rows


def check_samples(config: ClusterConfig, at_least: int, *, full_tree: bool) -> None:
    """Check that the sweep's sample, and the rows of HDBSCAN's tree unless it is a ``full_tree`` of the pool, are large enough.

    Raises:
        ModelError: a setting allows fewer than ``at_least`` rows.
    """
    settings = {"sweep_rows": config.sweep_rows}
    if config.method == "hdbscan" and not full_tree:
        settings["tree_rows"] = config.tree_rows
    for name, rows in settings.items():
        if rows < at_least:
            raise ModelError(
                f"cluster.{name} is {rows}, but clustering by {config.method} needs at least {at_least} rows for its sweep; "
                f"set cluster.{name}={at_least} or more, preferably thousands"
            )


def check_strata(strata: Sequence[str] | None, n: int) -> None:
    """Check that every row has a stratum.

    Raises:
        ModelError: the numbers differ.
    """
    if strata is not None and len(strata) != n:
        raise ModelError(f"there are {n} embedded rows but {len(strata)} row languages; pass one language for each row")
