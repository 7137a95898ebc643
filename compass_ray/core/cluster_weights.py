"""Cluster weights: shares of the auxiliary budget by cluster, without regard to the number of candidates.

`ratio` is the paper's importance weight. `deficit` closes the gap between guide set and training data as far as the budget
allows. `none` is the ablation without cluster weighting. COMPASS, section 3.2.2.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_counts
from compass_ray.core.water_filling import water_fill

SMOOTHING = 1.0


class Weighting(StrEnum):
    """Rule for the weights of clusters; see `ratio_weights`, `deficit_weights` and `equal_weights`."""

    RATIO = "ratio"
    DEFICIT = "deficit"
    NONE = "none"


def ratio_weights(n_target: npt.ArrayLike, n_eval: npt.ArrayLike) -> FloatArray:
    """n_eval / (n_target + 1), normalised: float64[K]; 0 for clusters without guide prompts. COMPASS, section 3.2.2.

    All zero if no guide prompt is in a cluster.

    >>> ratio_weights([0, 9, 4], [1, 10, 0]).tolist()
    [0.5, 0.5, 0.0]
    """
    n_target, n_eval = as_counts(n_target, "n_target"), as_counts(n_eval, "n_eval")
    return _normalised(n_eval / (n_target + SMOOTHING))


def deficit_weights(n_target: npt.ArrayLike, n_eval: npt.ArrayLike, budget: int) -> FloatArray:
    """Shares of `budget` rows that bring D_t + S closest to P_eval: float64[K], by water-filling.

    Unlike `ratio` it depends on the budget: a small budget fills the largest gaps only.

    >>> deficit_weights([10, 0, 0], [2, 1, 1], 10).tolist()
    [0.0, 0.5, 0.5]
    >>> deficit_weights([10, 0, 0], [2, 1, 1], 30).round(6).tolist()
    [0.333333, 0.333333, 0.333333]
    """
    n_target, n_eval = as_counts(n_target, "n_target"), as_counts(n_eval, "n_eval")
    no_limit = np.full(len(n_eval), float(budget) + 1.0)
    return _normalised(water_fill(_normalised(n_eval), n_target.astype(np.float64), no_limit, float(budget)))


def equal_weights(n_clusters: int) -> FloatArray:
    """The same weight for every cluster: float64[K].

    >>> equal_weights(4).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return np.full(n_clusters, 1.0 / n_clusters)


def cluster_weights(
    n_target: npt.ArrayLike, n_eval: npt.ArrayLike, budget: int, *, weights: str | Weighting = Weighting.RATIO
) -> FloatArray:
    """Weights float64[K] by a rule; they sum to 1, or to 0 if no cluster has a weight.

    >>> cluster_weights([0, 1], [1, 1], 10, weights="ratio").round(6).tolist()
    [0.666667, 0.333333]
    """
    rule = parse_weighting(weights)
    if rule is Weighting.RATIO:
        return ratio_weights(n_target, n_eval)
    if rule is Weighting.DEFICIT:
        return deficit_weights(n_target, n_eval, budget)
    return equal_weights(len(as_counts(n_eval, "n_eval")))


def parse_weighting(weights: str | Weighting) -> Weighting:
    """Parse a rule; ValueError with all rules if it is unknown.

    >>> parse_weighting("deficit").name
    'DEFICIT'
    """
    try:
        return Weighting(weights)
    except ValueError:
        raise ValueError(f"weights is {weights!r}; choose one of {', '.join(Weighting)}.") from None


def _normalised(values: IntArray | FloatArray) -> FloatArray:
    total = float(values.sum())
    return np.asarray(values / total if total > 0 else np.zeros(len(values)), dtype=np.float64)
