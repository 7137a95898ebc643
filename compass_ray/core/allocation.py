"""Allocation of one language: counts, weights and quotas by cluster, and unfilled rows.

A record for the artifact and the report, made from cluster labels. The arithmetic is in `cluster_weights` and `quotas`.
COMPASS, sections 3.2.2 and 3.2.3.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray
from compass_ray.core.cluster_weights import Weighting, cluster_weights
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.quotas import Overflow, allocate_quotas, budget_rows, max_rows_per_cluster


@dataclass(frozen=True)
class Allocation:
    """Counts and `quota` int64[K] and `weights` float64[K] of each cluster, all without noise.

    `budget` is the number of rows to add. `unfilled` int64[K] is the rounded weight times budget minus the
    candidates of a cluster, 0 at least, whether or not other clusters took over these rows.
    """

    n_target: IntArray
    n_aux: IntArray
    n_eval: IntArray
    weights: FloatArray
    quota: IntArray
    unfilled: IntArray
    budget: int

    @property
    def unallocated(self) -> int:
        """Rows of the budget without candidates in any cluster."""
        return self.budget - int(self.quota.sum())

    def with_zero_quota(self) -> "Allocation":
        """The same counts with budget and quotas of zero, as for training on the target's rows alone."""
        none = np.zeros_like(self.quota)
        return replace(self, weights=np.zeros_like(self.weights), quota=none, unfilled=none, budget=0)


def plan_allocation(
    target_labels: npt.ArrayLike,
    aux_labels: npt.ArrayLike,
    guide_labels: npt.ArrayLike,
    n_clusters: int,
    budget: float,
    *,
    weights: str | Weighting = Weighting.RATIO,
    overflow: str | Overflow = Overflow.REDISTRIBUTE,
    rng: np.random.Generator,
) -> Allocation:
    """Allocation from cluster labels int[n] (-1 is noise); `budget` is a factor of all target rows.

    Target rows in noise count towards the budget; noise gets no quota.

    >>> rng = np.random.default_rng(0)
    >>> plan = plan_allocation([0, 0], [0, 1, 1], [0, 1], 2, 1.5, weights="deficit", rng=rng)
    >>> plan.quota.tolist(), plan.unfilled.tolist(), plan.unallocated
    ([1, 2], [0, 0], 0)
    """
    n_target, n_aux, n_eval = (cluster_counts(x, n_clusters)[:-1] for x in (target_labels, aux_labels, guide_labels))
    total = budget_rows(budget, np.size(target_labels))
    share = cluster_weights(n_target, n_eval, total, weights=weights)
    quota = allocate_quotas(n_target, n_aux, n_eval, total, weights=weights, overflow=overflow, rng=rng)
    unfilled = np.maximum(np.rint(share * total).astype(np.int64) - max_rows_per_cluster(n_aux, overflow), 0)
    return Allocation(n_target, n_aux, n_eval, share, quota, unfilled, total)
