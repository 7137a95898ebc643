"""Distributions over clusters, and the divergence of two of them in bits.

The Jensen-Shannon divergence to base 2 is symmetric and in [0, 1]. It is not its square root, which
`scipy.spatial.distance.jensenshannon` returns. Noise (label -1) has its own bin, the last one. COMPASS, sections 3.1 and
3.3.2, equations 3 to 5.
"""

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_counts, as_labels


def cluster_counts(labels: npt.ArrayLike, n_clusters: int) -> IntArray:
    """Rows in each cluster: int64[n_clusters + 1], the last bin for noise (label -1).

    `labels` is int[n]. ValueError if a label is below -1 or not below `n_clusters`.

    >>> cluster_counts([0, 2, 2, -1], 3).tolist()
    [1, 0, 2, 1]
    """
    clean = as_labels(labels, n_clusters)
    return np.bincount(np.where(clean < 0, n_clusters, clean), minlength=n_clusters + 1).astype(np.int64)


def probabilities(counts: npt.ArrayLike) -> FloatArray:
    """Counts or weights, shape (..., K), divided by their sum over the last axis.

    ValueError on negative, non-finite or all-zero rows.

    >>> probabilities([1, 3]).tolist()
    [0.25, 0.75]
    """
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"a distribution needs at least one bin; got shape {values.shape}.")
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"counts must be finite and 0 or more; the smallest given is {values.min()}.")
    total = values.sum(axis=-1, keepdims=True)
    if (total == 0).any():
        raise ValueError("all counts are zero, so there is no distribution; count at least one row first.")
    return np.asarray(values / total, dtype=np.float64)


def js_divergence(p: npt.ArrayLike, q: npt.ArrayLike) -> float:
    """Jensen-Shannon divergence of two distributions in bits, 0 (equal) to 1 (disjoint); COMPASS, equation 5.

    `p`, `q`: counts or probabilities, shape (K,); each is normalised. ValueError on different shapes,
    negative or all-zero input.

    >>> round(js_divergence([3, 1], [1, 3]), 6)
    0.188722
    >>> js_divergence([1, 0], [0, 5])
    1.0
    """
    p, q = np.asarray(p), np.asarray(q)
    if p.ndim != 1 or p.shape != q.shape:
        raise ValueError(f"distributions have shapes {p.shape} and {q.shape}; expected the same clusters in both, (K,).")
    return float(js_divergences(p, q))


def js_divergences(p: npt.ArrayLike, q: npt.ArrayLike) -> FloatArray:
    """`js_divergence` along the last axis of arrays that broadcast: (..., K), (..., K) -> float64(...).

    >>> js_divergences([[1, 0], [1, 1]], [1, 1]).round(6).tolist()
    [0.311278, 0.0]
    """
    first, second = np.broadcast_arrays(probabilities(p), probabilities(q))
    middle = (first + second) / 2
    bits = (_entropy_terms(first, middle) + _entropy_terms(second, middle)) / 2
    return np.asarray(np.clip(bits, 0.0, 1.0))


def noise_share(counts: npt.ArrayLike) -> float:
    """Share of rows in the last bin (noise) of counts over K clusters and noise, shape (K + 1,).

    >>> noise_share([2, 1, 1])
    0.25
    """
    return float(probabilities(as_counts(counts, "counts"))[-1])


def _entropy_terms(p: FloatArray, middle: FloatArray) -> FloatArray:
    """Kullback-Leibler divergence of p from the middle, in bits, with 0 log 0 = 0."""
    ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(axis=-1))
