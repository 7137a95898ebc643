"""Incremental k-means: move centroids towards new rows without a new fit; distances of rows to centroids.

Clusters without new rows do not move, and cluster ids never change. COMPASS, section 3.3.1, equation 2. Counts made with
the old centroids are not comparable with counts made with moved ones, so callers keep versions of centroids. HDBSCAN is
not supported: its tree is fixed.
"""

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import Float32Array, as_labels, check_fraction, unit_rows


def update_centroids(centroids: npt.ArrayLike, embeddings: npt.ArrayLike, labels: npt.ArrayLike, eta: float) -> Float32Array:
    """Centroids float32 (K, d) moved to (1 - eta) mu + eta mean(new rows), by rows (n, d) with labels int[n].

    Noise rows (label -1) move no centroid. ValueError on NaN, and on eta outside [0, 1].

    >>> update_centroids([[0.0, 0.0], [4.0, 4.0]], [[2.0, 0.0], [4.0, 0.0]], [0, 0], 0.5).tolist()
    [[1.5, 0.0], [4.0, 4.0]]
    """
    check_fraction(eta, "eta")
    moved = np.array(centroids, dtype=np.float64)
    rows = np.asarray(embeddings, dtype=np.float64).reshape(-1, moved.shape[1])
    clusters = as_labels(labels, len(moved))
    if len(rows) != len(clusters) or not np.isfinite(rows).all():
        raise ValueError(f"{len(rows)} embeddings, {len(clusters)} labels; expected the same number, without NaN. Embed again.")
    for k in np.unique(clusters[clusters >= 0]):
        moved[k] = (1.0 - eta) * moved[k] + eta * rows[clusters == k].mean(axis=0)
    return moved.astype(np.float32)


def centroid_distances(embeddings: npt.ArrayLike, centroids: npt.ArrayLike, labels: npt.ArrayLike) -> Float32Array:
    """One minus the cosine of each of (n, d) rows to the centroid of its cluster, float32[n] in [0, 2].

    `centroids` (K, d), `labels` int[n]; for noise (label -1) the distance to the nearest centroid. ValueError on NaN and on
    rows of zeros.

    >>> centroid_distances([[2.0, 0.0], [3.0, 4.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [0, 0, -1]).round(2).tolist()
    [0.0, 0.4000000059604645, 0.0]
    """
    clusters = as_labels(labels, len(np.asarray(centroids)))
    if not len(clusters):
        return np.zeros(0, np.float32)
    rows, centres = unit_rows(embeddings), unit_rows(centroids, "centroids")
    cosines = np.vecdot(rows, centres[clusters])
    noise = clusters < 0
    cosines[noise] = (rows[noise] @ centres.T).max(axis=1)
    return np.asarray(np.clip(1.0 - cosines, 0.0, 2.0), dtype=np.float32)
