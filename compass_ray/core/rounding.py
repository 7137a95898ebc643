"""Unbiased rounding of fractions of rows to integers with an exact total.

Each entry becomes its floor or its ceiling, entries sum to the total, and the expected value of each entry is the
fraction itself. The remainders are drawn jointly by systematic sampling (one uniform number, equal steps). Drawing each
remainder separately, as printed in COMPASS, section 3.2.3, would miss the total.
"""

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray

NEARLY_INTEGER = 1e-9


def round_to_total(amounts: FloatArray, total: int, *, rng: np.random.Generator) -> IntArray:
    """int64[K] with sum `total` and mean `amounts` (float64[K], summing to `total` up to rounding error).

    Clusters are sampled in random order, so that the results of adjacent clusters are not correlated over runs.

    >>> round_to_total(np.array([0.5, 0.5, 2.0]), 3, rng=np.random.default_rng(0)).sum()
    np.int64(3)
    """
    near = np.rint(amounts)
    amounts = np.where(np.abs(amounts - near) < NEARLY_INTEGER, near, amounts)
    rounded = np.floor(amounts).astype(np.int64)
    missing = total - int(rounded.sum())
    if missing == 0:
        return rounded
    order = rng.permutation(len(amounts))
    rounded[order] += _systematic((amounts - rounded)[order], missing, rng.random())
    return rounded


def _systematic(remainders: FloatArray, count: int, start: float) -> IntArray:
    """int64[K] of 0 and 1 with sum `count`: whether start, start + 1, ... fall into a remainder's interval."""
    edges = np.cumsum(remainders)
    if not 0.5 < edges[-1] / count < 2.0:
        raise ValueError(f"amounts miss the total by {count - edges[-1]:.3g} rows; give amounts that sum to the total.")
    edges *= count / edges[-1]
    edges[-1] = count
    passed = np.ceil(edges - start).astype(np.int64)
    return np.diff(passed, prepend=0)
