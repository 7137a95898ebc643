"""Validation rows for early stopping: stratified split and row weights.

Validation rows are stratified by cluster. Their weights change the training distribution into that of the guide set, so
that early stopping does not follow biased training data. The paper only mentions early stopping. Guide and test rows are
never used.
"""

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import BoolArray, FloatArray, as_labels
from compass_ray.core.distribution import cluster_counts, probabilities
from compass_ray.core.rounding import round_to_total


def split_holdout(labels: npt.ArrayLike, fraction: float, rng: np.random.Generator) -> BoolArray:
    """bool[n], true for round(fraction * n) rows held out, stratified by cluster label int[n] (-1 is noise).

    At least one row and at most n - 1 if the fraction is above 0 and n above 1. ValueError outside [0, 1).

    >>> held = split_holdout([0] * 10 + [1] * 20, 0.1, np.random.default_rng(0))
    >>> int(held[:10].sum()), int(held[10:].sum())
    (1, 2)
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"fraction is {fraction}; expected 0 (nothing held out) to below 1.")
    names, strata, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    n = int(counts.sum())
    held = np.zeros(n, np.bool_)
    if fraction == 0.0 or n < 2:
        return held
    total = min(max(round(fraction * n), 1), n - 1)
    quota = round_to_total(counts.astype(np.float64) * (total / n), total, rng=rng)
    for stratum in range(len(names)):
        held[rng.choice(np.flatnonzero(strata == stratum), size=quota[stratum], replace=False)] = True
    return held


def split_holdout_rows(row_ids: npt.ArrayLike, labels: npt.ArrayLike, fraction: float, rng: np.random.Generator) -> BoolArray:
    """`split_holdout` of distinct rows: all uses of a row, one of `row_ids` str[n], are held out together or not at all.

    A repeated row in both parts would be validated on what was trained. Equal to `split_holdout` if no row repeats.

    >>> split_holdout_rows(["a", "b", "a"], [0, 0, 0], 0.5, np.random.default_rng(0)).tolist()
    [False, True, False]
    """
    _, first, row = np.unique(np.asarray(row_ids), return_index=True, return_inverse=True)
    distinct = np.sort(first)
    held = split_holdout(np.asarray(labels)[distinct], fraction, rng)
    return np.asarray(held[np.searchsorted(distinct, first[row])])


def validation_weights(labels: npt.ArrayLike, p_eval: npt.ArrayLike) -> FloatArray:
    """Weights float64[n] with mean 1 under which held-out rows with cluster `labels` int[n] follow `p_eval`.

    `p_eval`: counts or probabilities of the guide set, [K + 1], noise last. Clusters without a held-out row
    are ignored, and the others share their part. If the held-out rows and the guide set have no common cluster, all
    weights are 1.

    >>> validation_weights([0, 0, 0, 1], [0.5, 0.5, 0.0]).round(6).tolist()
    [0.666667, 0.666667, 0.666667, 2.0]
    """
    wanted = probabilities(p_eval)
    clusters = as_labels(labels, len(wanted) - 1)
    counts = cluster_counts(clusters, len(wanted) - 1)
    weight = (wanted / np.maximum(counts, 1))[clusters]
    peak = float(weight.max(initial=0.0))
    if peak == 0.0:
        return np.ones(len(clusters))
    return np.asarray(weight / peak / (weight / peak).mean())
