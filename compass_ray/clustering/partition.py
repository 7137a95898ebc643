"""Cells of a pool: many small groups, or few of bounded size, where quadratic work over all rows would be too much.

By mini-batch k-means, seeded. Not clusters: nobody looks at how good they are.
"""

from __future__ import annotations

import numpy as np

from compass_ray.clustering.centroid_clusterer import assign_nearest
from compass_ray.clustering.protocol import Float32, Int32, Int64

_BATCH = 8192
_SPARE = 1.5
"""Cells asked for, over the least that could do: they come out uneven."""


def mini_batch_labels(points: Float32, k: int, seed: int) -> Int32:
    """int32[n] group of each of ``points`` float32[n, r]: at most ``k`` groups, none empty."""
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(k, batch_size=_BATCH, init_size=max(_BATCH, 3 * k), n_init=1, random_state=seed).fit(points)
    labels = assign_nearest(points, fitted.cluster_centers_.astype(np.float32))
    return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def split_into_cells(points: Float32, at_most: int, seed: int) -> list[Int64]:
    """Row numbers int64 of each cell, at most ``at_most`` of ``points`` float32[n, r] in one; one cell if all fit in."""
    found: list[Int64] = []
    waiting = [np.arange(len(points))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= at_most:
            found.append(rows)
        else:
            waiting += _split(points, rows, at_most, seed)
    return sorted(found, key=lambda rows: int(rows[0]))


def _split(points: Float32, rows: Int64, at_most: int, seed: int) -> list[Int64]:
    k = int(np.ceil(_SPARE * len(rows) / at_most))
    labels = mini_batch_labels(points[rows], k, seed)
    parts = [rows[labels == label] for label in range(int(labels.max()) + 1)]
    # Equal rows cannot be told apart by where they lie.
    return parts if len(parts) > 1 else list(np.array_split(rows, k))
