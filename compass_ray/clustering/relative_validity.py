"""Relative validity: the quality of a density clustering, estimated from the spanning tree.

An estimate of DBCV (Moulavi et al. 2014). Densities and separations are read from the edges of the spanning tree that
clustering needs anyway, so a sweep computes no further distances. It screens the settings of a sweep; `dbcv` then scores the
best ones (COMPASS, appendix E). Not comparable between data sets.
"""

from __future__ import annotations

import numpy as np

from compass_ray.clustering.protocol import Float64, Int32

WORST_SCORE = -2.0
"""Score of a setting without clusters."""


def relative_validity(edges: Float64, labels: Int32) -> float:
    """Validity in [-1, 1] of ``labels`` int32[n] on spanning tree ``edges`` float64[n - 1, 3]; noise counts as 0.

    Sum over clusters of |C| / n * (separation - sparseness) / max(separation, sparseness). Sparseness is the longest edge
    inside the cluster, separation the shortest edge to another one.
    """
    k = int(labels.max()) + 1
    if k == 0:
        return -1.0
    a, b = labels[edges[:, 0].astype(np.int64)], labels[edges[:, 1].astype(np.int64)]
    distance = edges[:, 2]
    sparseness, separation = np.zeros(k), np.full(k, np.inf)
    inside = (a == b) & (a >= 0)
    between = (a != b) & (a >= 0) & (b >= 0)
    np.maximum.at(sparseness, a[inside], distance[inside])
    for side in (a, b):
        np.minimum.at(separation, side[between], distance[between])
    # A cluster that only noise connects to the others is farther away than any edge.
    alone = (a >= 0) ^ (b >= 0)
    farthest = distance.max() if k > 1 or not alone.any() else distance[alone].min()
    separation[np.isinf(separation)] = 2 * farthest
    share = np.bincount(labels[labels >= 0], minlength=k) / len(labels)
    return float(np.sum(share * (separation - sparseness) / np.maximum(separation, sparseness)))


def screening_score(edges: Float64, labels: Int32) -> float:
    """Relative validity with noise penalty, the score of the screening."""
    return apply_noise_penalty(relative_validity(edges, labels), labels)


def apply_noise_penalty(validity: float, labels: Int32) -> float:
    """Validity times (1 - noise share); noise lowers a negative validity too. Noise only gives `WORST_SCORE`.

    >>> labels = np.array([0, 0, -1, -1], np.int32)
    >>> apply_noise_penalty(0.5, labels), apply_noise_penalty(-0.5, labels)
    (0.25, -0.75)
    """
    noise = float(np.mean(labels < 0))
    if noise == 1.0:
        return WORST_SCORE
    return validity * (1 - noise) if validity >= 0 else validity * (1 + noise)
