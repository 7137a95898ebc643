"""Quotas: integer numbers of auxiliary rows per cluster that sum to the budget.

The sum is exactly the budget if there are enough candidates. No quota exceeds what a cluster can give. Over seeds the mean
is weight x budget unless a cluster is exhausted. The printed quota rounds the weight instead of the number of rows (COMPASS,
section 3.2.3). If candidates are too few, the sum is below the budget.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_counts, whole_number
from compass_ray.core.cluster_weights import Weighting, parse_weighting, ratio_weights
from compass_ray.core.rounding import round_to_total
from compass_ray.core.water_filling import water_fill

MAX_REPEATS = 3


class Overflow(StrEnum):
    """Rule for the part of a quota that exceeds a cluster's candidates."""

    REDISTRIBUTE = "redistribute"
    REPEAT = "repeat"


def budget_rows(budget: float, n_target: int) -> int:
    """Auxiliary rows to add: `budget` (a factor, the paper's B) times the target's rows, rounded.

    >>> budget_rows(0.8, 1000)
    800
    """
    if not (np.isfinite(budget) and budget >= 0):
        raise ValueError(f"budget is {budget}; expected a factor of 0 or more (the paper uses 0.2 to 2.0).")
    return round(budget * n_target)


def allocate_quotas(
    n_target: npt.ArrayLike,
    n_aux: npt.ArrayLike,
    n_eval: npt.ArrayLike,
    budget: int,
    *,
    weights: str | Weighting = Weighting.RATIO,
    overflow: str | Overflow = Overflow.REDISTRIBUTE,
    rng: np.random.Generator,
) -> IntArray:
    """Quota of each cluster, int64[K], from counts of target, auxiliary and guide rows, int[K] without noise.

    `budget` is in rows. 0 where `n_eval` is 0, except with weights "none". Maximum: `n_aux` with "redistribute",
    where the excess of a cluster goes to the others in proportion to weight, and 3 `n_aux` with "repeat". With "deficit"
    rows that remain after the gaps are filled are shared in proportion to P_eval. ValueError on counts that are negative
    or of different lengths, and on a negative budget.

    >>> allocate_quotas([0, 9], [90, 90], [1, 10], 20, rng=np.random.default_rng(0)).tolist()
    [10, 10]
    >>> allocate_quotas([0, 9], [4, 90], [1, 10], 20, rng=np.random.default_rng(0)).tolist()
    [4, 16]
    """
    basins = _basins(n_target, n_aux, n_eval, budget, weights, overflow)
    return round_to_total(basins.fill_levels(), basins.total, rng=rng)


def expected_quotas(
    n_target: npt.ArrayLike,
    n_aux: npt.ArrayLike,
    n_eval: npt.ArrayLike,
    budget: int,
    *,
    weights: str | Weighting = Weighting.RATIO,
    overflow: str | Overflow = Overflow.REDISTRIBUTE,
) -> FloatArray:
    """Mean of `allocate_quotas` over seeds, in fractions of rows, float64[K]. Raises the same ValueErrors.

    >>> expected_quotas([0, 9], [90, 90], [1, 10], 5).tolist()
    [2.5, 2.5]
    """
    return _basins(n_target, n_aux, n_eval, budget, weights, overflow).fill_levels()


def max_rows_per_cluster(n_aux: npt.ArrayLike, overflow: str | Overflow) -> IntArray:
    """Maximum rows of each cluster, int64[K]: its candidates, or three times that if rows repeat.

    >>> max_rows_per_cluster([2, 5], "repeat").tolist()
    [6, 15]
    """
    try:
        rule = Overflow(overflow)
    except ValueError:
        raise ValueError(f"overflow is {overflow!r}; choose one of {', '.join(Overflow)}.") from None
    candidates = as_counts(n_aux, "n_aux")
    return candidates * MAX_REPEATS if rule is Overflow.REPEAT else candidates


def _rates(n_target: IntArray, n_eval: IntArray, weights: Weighting) -> tuple[FloatArray, FloatArray]:
    """Rate and floor of each basin; only the deficit rule starts from the target's own rows."""
    zero = np.zeros(len(n_eval))
    if weights is Weighting.RATIO:
        return ratio_weights(n_target, n_eval), zero
    if weights is Weighting.NONE:
        return zero + 1.0, zero
    return n_eval / max(int(n_eval.sum()), 1), n_target.astype(np.float64)


@dataclass(frozen=True)
class _Basins:
    """Arguments of `water_fill` by cluster: `rate`, `floor` float64[K] and `cap` int64[K], and the rows to share out."""

    rate: FloatArray
    floor: FloatArray
    cap: IntArray
    total: int

    def fill_levels(self) -> FloatArray:
        return water_fill(self.rate, self.floor, self.cap.astype(np.float64), float(self.total))


def _basins(
    n_target: npt.ArrayLike,
    n_aux: npt.ArrayLike,
    n_eval: npt.ArrayLike,
    budget: int,
    weights: str | Weighting,
    overflow: str | Overflow,
) -> _Basins:
    counts = [as_counts(n, name) for n, name in ((n_target, "n_target"), (n_aux, "n_aux"), (n_eval, "n_eval"))]
    if len({len(n) for n in counts}) != 1:
        raise ValueError(f"n_target, n_aux, n_eval have {[len(n) for n in counts]} clusters; expected the same number.")
    rate, floor = _rates(counts[0], counts[2], parse_weighting(weights))
    cap = max_rows_per_cluster(counts[1], overflow)
    return _Basins(rate, floor, cap, min(whole_number(budget, "budget"), int(cap[rate > 0].sum())))
