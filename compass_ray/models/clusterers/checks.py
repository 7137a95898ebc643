"""Whether embeddings can be clustered at all, said before the work starts rather than by what comes out of it."""

from __future__ import annotations

import numpy as np

from compass_ray.models.clusterers.protocol import Float32
from compass_ray.models.errors import ModelError


def check_embeddings(embeddings: Float32, at_least: int) -> Float32:
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
        raise ModelError(
            f"there are {len(rows)} embedded rows, and this clustering needs {at_least}; give more rows, or set "
            f"cluster.method=kmeans with smaller cluster.n_clusters"
        )
    if bool((rows == rows[0]).all()):
        raise ModelError(f"all {len(rows)} embeddings are identical; look at the prompts and the encoder")
    return rows
