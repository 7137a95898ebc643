"""Water-filling: raise one level until the basins hold a given total.

x_k = clip(level * rate_k - floor_k, 0, cap_k) with sum x = min(total, capacity). With floors of zero it shares a total in
proportion to rate, and redistributes the excess of a full basin in the same proportion. With floors n_t and rates P_eval, x
brings n_t + x closest to P_eval in every f-divergence, because the ratio of the two is equal wherever rows are added. The
results are fractions; `rounding` makes them integers.
"""

import numpy as np

from compass_ray.core.array_checks import FloatArray


def water_fill(rate: FloatArray, floor: FloatArray, cap: FloatArray, total: float) -> FloatArray:
    """Contents float64[K] of the basins at the level where they sum to `total`; all full if they hold less.

    `rate`, `floor`, `cap`: float64[K], 0 or more; basins with rate 0 stay empty.

    >>> z = np.zeros(3)
    >>> water_fill(np.array([1.0, 1.0, 2.0]), z, np.array([9.0, 1.0, 9.0]), 7.0).round(9).tolist()
    [2.0, 1.0, 4.0]
    >>> water_fill(np.array([0.5, 0.5]), np.array([6.0, 0.0]), np.array([99.0, 99.0]), 4.0).tolist()
    [0.0, 4.0]
    """
    contents = np.zeros(len(rate))
    open_ = np.flatnonzero((rate > 0) & (cap > 0))
    if total <= 0 or open_.size == 0:
        return contents
    if total >= cap[open_].sum():
        contents[open_] = cap[open_]
        return contents
    level = _level(rate[open_], floor[open_], cap[open_], total)
    contents[open_] = np.clip(level * rate[open_] - floor[open_], 0.0, cap[open_])
    return contents


def _level(rate: FloatArray, floor: FloatArray, cap: FloatArray, total: float) -> float:
    """The level at which contents sum to `total`; contents are piecewise linear, so the segment is found by search."""
    breaks = np.concatenate([floor / rate, (floor + cap) / rate])
    slopes = np.concatenate([rate, -rate])
    order = np.argsort(breaks, kind="stable")
    breaks, slope = breaks[order], np.cumsum(slopes[order])
    held = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(breaks))])
    i = int(np.searchsorted(held, total, side="left")) - 1
    i = min(max(i, 0), len(breaks) - 2)
    return float(breaks[i] + (total - held[i]) / slope[i])
