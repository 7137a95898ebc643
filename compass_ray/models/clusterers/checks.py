"""Whether embeddings can be clustered at all, said before the work starts rather than by what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compass_ray.models.clusterers.protocol import Float32
from compass_ray.models.errors import ModelError

_REMEDY = {
    "hdbscan": "cluster.method=kmeans with smaller cluster.n_clusters",
    "kmeans": "smaller cluster.n_clusters",
    "ward": "smaller cluster.n_clusters",
}


def check_embeddings(embeddings: Float32, at_least: int, method: str) -> Float32:
    """The embeddings as contiguous float32[n, d].

    Raises:
        ModelError: NaN, fewer rows than clusters need, or no two different rows.
    """
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    if rows.ndim != 2:
        raise ModelError(f"embeddings have shape {rows.shape}; expected (rows, dimensions)")
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if bad.size:
        raise ModelError(f"{bad.size} embeddings hold NaN or infinity, the first is row {bad[0]}; embed the pool again")
    if len(rows) < at_least:
        other = f", or set {_REMEDY[method]}" if method in _REMEDY else ""
        raise ModelError(
            f"there are {len(rows)} embedded rows, and clustering by {method} needs {at_least}; give more rows{other}"
        )
    if bool((rows == rows[0]).all()):
        raise ModelError(f"all {len(rows)} embeddings are identical; look at the prompts and the encoder")
    return rows


def check_strata(strata: Sequence[str] | None, n: int) -> None:
    """Whether every row has its stratum.

    Raises:
        ModelError: there are fewer of them, or more.
    """
    if strata is not None and len(strata) != n:
        raise ModelError(f"there are {n} embedded rows and {len(strata)} languages of rows; give one for each row")
