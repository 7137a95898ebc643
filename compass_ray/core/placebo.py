"""Placebo: COMPASS's quotas, permuted over the clusters, so that a cluster's number of rows says nothing of its gap.

As many rows are added, and each cluster is sampled as under COMPASS. A permuted quota may exceed what a cluster can give. The
excess of all clusters goes to the others in proportion to the rows that they can still give, so the total stays equal. A
control for COMPASS, section 3.2.2; not in the paper.
"""

from dataclasses import replace

import numpy as np

from compass_ray.core.allocation import Allocation
from compass_ray.core.array_checks import IntArray
from compass_ray.core.quotas import Overflow, max_rows_per_cluster
from compass_ray.core.rounding import round_to_total
from compass_ray.core.water_filling import water_fill


def permute_allocation(allocation: Allocation, overflow: Overflow, rng: np.random.Generator) -> Allocation:
    """An allocation with its quotas and weights permuted over the clusters that have candidates; others keep a quota of 0."""
    cap = max_rows_per_cluster(allocation.n_aux, overflow)
    order = permute_clusters(cap, rng)
    weights = allocation.weights[order]
    unfilled = np.maximum(np.rint(weights * allocation.budget).astype(np.int64) - cap, 0)
    quota = fit_quotas(allocation.quota[order], cap, rng)
    return replace(allocation, weights=weights, quota=quota, unfilled=unfilled)


def permute_clusters(cap: IntArray, rng: np.random.Generator) -> IntArray:
    """The cluster int64[K] whose quota each cluster gets: a random permutation of those with a `cap` int64[K] above 0.

    >>> permute_clusters(np.array([5, 0, 5, 5]), np.random.default_rng(0)).tolist()
    [3, 1, 0, 2]
    """
    order = np.arange(len(cap), dtype=np.int64)
    open_ = np.flatnonzero(cap > 0)
    order[open_] = rng.permutation(open_)
    return order


def fit_quotas(quota: IntArray, cap: IntArray, rng: np.random.Generator) -> IntArray:
    """Quotas int64[K] of the same sum, none above `cap` int64[K]; excess goes where there is room, in proportion to the room.

    ValueError if the sum is above that of `cap`.

    >>> fit_quotas(np.array([6, 1, 0]), np.array([2, 3, 2]), np.random.default_rng(0)).tolist()
    [2, 3, 2]
    """
    if quota.sum() > cap.sum():
        raise ValueError(f"the quotas sum to {quota.sum()} and clusters can give {cap.sum()} rows; expected no more than that.")
    fitting = np.minimum(quota, cap)
    room, excess = (cap - fitting).astype(np.float64), int(quota.sum() - fitting.sum())
    placed = water_fill(room, np.zeros(len(cap)), room, float(excess))
    return np.asarray(fitting + round_to_total(placed, excess, rng=rng))
