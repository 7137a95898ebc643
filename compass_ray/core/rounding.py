"""Fractions of rows made whole, with the total exact and the mean unbiased.

Key property: each entry becomes its floor or its ceiling, entries sum to the total, and the expected value of
each entry is the fraction itself: the remainders are drawn jointly by systematic sampling (one uniform
number, equal steps). Drawing each remainder on its own, as printed in COMPASS, section 3.2.3, would miss the
total.
"""

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray

NEARLY_WHOLE = 1e-9


def round_to_total(amounts: FloatArray, total: int, *, rng: np.random.Generator) -> IntArray:
    """int64[K] with sum `total` and mean `amounts` (float64[K], summing to `total` up to rounding error).

    The clusters pass under the comb in random order, so that no two neighbours share their luck in every run.

    >>> round_to_total(np.array([0.5, 0.5, 2.0]), 3, rng=np.random.default_rng(0)).sum()
    np.int64(3)
    """
    near = np.rint(amounts)
    amounts = np.where(np.abs(amounts - near) < NEARLY_WHOLE, near, amounts)
    whole = np.floor(amounts).astype(np.int64)
    missing = total - int(whole.sum())
    if missing == 0:
        return whole
    order = rng.permutation(len(amounts))
    whole[order] += _systematic((amounts - whole)[order], missing, rng.random())
    return whole


def _systematic(remainders: FloatArray, count: int, start: float) -> IntArray:
    """int64[K] of 0 and 1 with sum `count`: whether start, start + 1, ... meet a remainder's stretch."""
    edges = np.cumsum(remainders)
    if not 0.5 < edges[-1] / count < 2.0:
        raise ValueError(f"amounts miss the total by {count - edges[-1]:.3g} rows; give amounts that sum to the total.")
    edges *= count / edges[-1]
    edges[-1] = count
    passed = np.ceil(edges - start).astype(np.int64)
    return np.diff(passed, prepend=0)
