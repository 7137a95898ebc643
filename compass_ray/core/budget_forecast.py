"""Forecast of a language's budget from cluster counts alone, without training.

A budget is measured by the share of the gap that it fills. The forecast is the smallest budget that fills nearly as much
as the largest one. The paper asks for a budget tuned per language and gives no predictor (COMPASS, section 5.2).
The forecast uses no text and no model. It does not know whether the added rows help, or whether more rows help after the
gap is filled. On the atlas they do, so its forecasts are too small there.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_counts, check_fraction
from compass_ray.core.cluster_weights import Weighting
from compass_ray.core.gap import measure_gap
from compass_ray.core.quotas import Overflow, budget_rows, expected_quotas

SHARE = 0.99
"""Minimum share that the forecast fills of what the largest budget fills; the best of seven values on four languages."""


@dataclass(frozen=True)
class BudgetForecast:
    """`filled` float64[B]: the share of the gap that each of `budgets` float64[B] fills; `suggestion`: the forecast."""

    budgets: FloatArray
    filled: FloatArray
    suggestion: float


def forecast_budget(
    n_target: npt.ArrayLike,
    n_aux: npt.ArrayLike,
    n_eval: npt.ArrayLike,
    budgets: npt.ArrayLike,
    *,
    share: float = SHARE,
    weights: str | Weighting = Weighting.RATIO,
    overflow: str | Overflow = Overflow.REDISTRIBUTE,
) -> BudgetForecast:
    """The smallest of `budgets` (factors of the target's rows) that fills `share` of what the largest fills.

    `n_target`, `n_aux`, `n_eval`: counts int[K + 1] of target, auxiliary and guide rows by cluster, noise last (see
    `cluster_counts`). ValueError on budgets that are not increasing, a share outside [0, 1] and an empty guide set.

    >>> found = forecast_budget([8, 0, 0], [99, 99, 0], [1, 1, 0], [0.2, 0.6, 1.0, 1.4], weights="deficit")
    >>> found.filled.round(3).tolist(), found.suggestion
    ([0.765, 0.969, 1.0, 1.0], 1.0)
    """
    grid = _increasing(budgets)
    target, aux = as_counts(n_target, "n_target"), as_counts(n_aux, "n_aux")
    guide = as_counts(n_eval, "n_eval")
    filled = np.array([_filled(target, aux, guide, budget, weights, overflow) for budget in grid])
    filled = np.maximum.accumulate(filled)
    enough = filled >= check_fraction(share, "share") * filled[-1]
    return BudgetForecast(grid, filled, float(grid[int(np.argmax(enough))]))


def _filled(
    n_target: IntArray, n_aux: IntArray, n_eval: IntArray, budget: float, weights: str | Weighting, overflow: str | Overflow
) -> float:
    """1 - JS(P_eval, P_train+aux) / JS(P_eval, P_train), at least 0; 1 if there is no gap. COMPASS, section 3.1.1."""
    rows = budget_rows(budget, int(n_target.sum()))
    quota = expected_quotas(n_target[:-1], n_aux[:-1], n_eval[:-1], rows, weights=weights, overflow=overflow)
    gap = measure_gap(n_eval, n_target, [*np.rint(quota).astype(np.int64), 0])
    return 1.0 if gap.js_before == 0.0 else max(0.0, 1.0 - gap.js_after / gap.js_before)


def _increasing(budgets: npt.ArrayLike) -> FloatArray:
    grid = np.asarray(budgets, dtype=np.float64)
    if grid.ndim != 1 or grid.size == 0 or not (np.diff(grid) > 0).all():
        raise ValueError(f"budgets are {grid.tolist()}; give at least one, in ascending order.")
    return grid
