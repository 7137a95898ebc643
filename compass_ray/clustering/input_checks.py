"""Whether embeddings can be clustered at all, said before the work starts rather than by what comes out of it."""

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
        ModelError: NaN, rows of zeros, fewer rows than clusters need, or no two different rows.
    """
    rows = _check_rows(embeddings)
    if len(rows) < at_least:
        other = f", or set {_REMEDY[method]}" if method in _REMEDY else ""
        raise ModelError(
            f"there are {len(rows)} embedded rows, and clustering by {method} needs {at_least}; give more rows{other}"
        )
    if bool((rows == rows[0]).all()):
        raise ModelError(f"all {len(rows)} embeddings are identical; look at the prompts and the encoder")
    return rows


def check_new_rows(embeddings: Float32, dimensions: int) -> Float32:
    """New rows as contiguous float32[n, d], for a clusterer that was fitted on ``dimensions`` of them.

    Raises:
        ModelError: another dimension, NaN, or rows of zeros.
    """
    rows = _check_rows(embeddings)
    if rows.shape[1] != dimensions:
        raise ModelError(
            f"embeddings have {rows.shape[1]} dimensions, and the clusterer was fitted on {dimensions}; "
            f"use the encoder that the pool was embedded with"
        )
    return rows


def _check_rows(embeddings: Float32) -> Float32:
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    if rows.ndim != 2:
        raise ModelError(f"embeddings have shape {rows.shape}; expected (rows, dimensions)")
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if bad.size:
        raise ModelError(f"{bad.size} embeddings hold NaN or infinity, the first is row {bad[0]}; embed them again")
    empty = np.flatnonzero(~rows.any(1))
    if empty.size:
        raise ModelError(
            f"{empty.size} embeddings are all zeros and have no direction, the first is row {empty[0]}; embed them again"
        )
    return rows


def check_samples(config: ClusterConfig, at_least: int, *, whole: bool) -> None:
    """Whether the rows that settings are tried on, and those of HDBSCAN's tree unless it is of the ``whole`` pool, suffice.

    Raises:
        ModelError: the setting allows fewer than ``at_least``.
    """
    asked = {"sweep_rows": config.sweep_rows}
    if config.method == "hdbscan" and not whole:
        asked["tree_rows"] = config.tree_rows
    for name, rows in asked.items():
        if rows < at_least:
            raise ModelError(
                f"cluster.{name} is {rows}, and clustering by {config.method} compares its settings on {at_least} rows at "
                f"least; set cluster.{name}={at_least} or more, better thousands"
            )


def check_strata(strata: Sequence[str] | None, n: int) -> None:
    """Whether every row has its stratum.

    Raises:
        ModelError: there are fewer of them, or more.
    """
    if strata is not None and len(strata) != n:
        raise ModelError(f"there are {n} embedded rows and {len(strata)} languages of rows; give one for each row")
