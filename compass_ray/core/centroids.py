"""Incremental k-means: centroids follow new rows without a new fit.

Key property: clusters without new rows do not move, and identities never change. COMPASS, section 3.3.1,
equation 2. A moved centroid makes counts against the old one stale: keep versions. Not here: HDBSCAN,
whose tree stays fixed.
"""

import numpy as np
import numpy.typing as npt

from compass_ray.core.arrays import Float32Array, as_labels, check_fraction


def update_centroids(centroids: npt.ArrayLike, embeddings: npt.ArrayLike, labels: npt.ArrayLike, eta: float) -> Float32Array:
    """Centroids float32 (K, d) moved to (1 - eta) mu + eta mean(new rows), by rows (n, d) with labels int[n].

    Noise rows (label -1) move nothing. ValueError on NaN, and on eta outside [0, 1].

    >>> update_centroids([[0.0, 0.0], [4.0, 4.0]], [[2.0, 0.0], [4.0, 0.0]], [0, 0], 0.5).tolist()
    [[1.5, 0.0], [4.0, 4.0]]
    """
    check_fraction(eta, "eta")
    moved = np.array(centroids, dtype=np.float64)
    rows = np.asarray(embeddings, dtype=np.float64).reshape(-1, moved.shape[1])
    clusters = as_labels(labels, len(moved))
    if len(rows) != len(clusters) or not np.isfinite(rows).all():
        raise ValueError(f"{len(rows)} embeddings, {len(clusters)} labels; expected as many, without NaN. Embed again.")
    for k in np.unique(clusters[clusters >= 0]):
        moved[k] = (1.0 - eta) * moved[k] + eta * rows[clusters == k].mean(axis=0)
    return moved.astype(np.float32)
