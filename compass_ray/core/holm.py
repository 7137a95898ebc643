"""Holm's correction of p-values for the number of tests: it controls the chance of one false claim in a family of tests."""

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, as_scores


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Corrected p-values float64[n], in the order given; a claim holds at level a if its value is at most a.

    The i-th smallest (from 0) is multiplied by n - i, never falls below an earlier one, and ends at 1. ValueError outside 0
    to 1.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    values = as_scores(p_values, np.size(p_values), "p_values")
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"p_values are {values!r}; expected values from 0 to 1.")
    order = np.argsort(values, kind="stable")
    corrected = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    found = np.empty_like(values)
    found[order] = np.minimum(corrected, 1.0)
    return found
