"""Partition a pool into cells of bounded size, or into many small groups, where work over all rows would be quadratic.

It uses seeded mini-batch k-means. Cells are not clusters: their quality is not measured.
"""

from __future__ import annotations

import numpy as np

from compass_ray.clustering.centroid_clusterer import assign_nearest
from compass_ray.clustering.protocol import Float32, Int32, Int64

_BATCH = 8192
_SPARE = 1.5
"""Factor on the minimum number of cells, because they come out uneven."""


def mini_batch_labels(points: Float32, k: int, seed: int) -> Int32:
    """int32[n] group of each of ``points`` float32[n, r]: at most ``k`` groups, none of them empty."""
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(k, batch_size=_BATCH, init_size=max(_BATCH, 3 * k), n_init=1, random_state=seed).fit(points)
    labels = assign_nearest(points, fitted.cluster_centers_.astype(np.float32))
    return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def split_into_cells(points: Float32, at_most: int, seed: int) -> list[Int64]:
    """Row numbers int64 of each cell, at most ``at_most`` of ``points`` float32[n, r] in one; one cell if all fit."""
    cells: list[Int64] = []
    pending = [np.arange(len(points))]
    while pending:
        rows = pending.pop()
        if len(rows) <= at_most:
            cells.append(rows)
        else:
            pending += _split(points, rows, at_most, seed)
    return sorted(cells, key=lambda rows: int(rows[0]))


def _split(points: Float32, rows: Int64, at_most: int, seed: int) -> list[Int64]:
    k = int(np.ceil(_SPARE * len(rows) / at_most))
    labels = mini_batch_labels(points[rows], k, seed)
    parts = [rows[labels == label] for label in range(int(labels.max()) + 1)]
    # Equal rows have the same nearest centre, so they are split by row number.
    return parts if len(parts) > 1 else list(np.array_split(rows, k))
