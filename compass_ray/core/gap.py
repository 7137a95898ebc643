"""The gap between a language's guide prompts and its training rows by cluster, before and after a selection.

Noise is its own bin in every distribution. COMPASS, sections 3.1 and 3.2.2.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, as_counts
from compass_ray.core.distribution import js_divergence, probabilities


@dataclass(frozen=True)
class Gap:
    """Distributions float64[K + 1], noise last: guide set, training rows before and after the selection.

    `js_before` and `js_after` are divergences from the guide set in bits. A language without its own rows has `p_before`
    all zero and `js_before` 1, the maximum, because no guide prompt is covered.
    """

    p_eval: FloatArray
    p_before: FloatArray
    p_after: FloatArray
    js_before: float
    js_after: float


def measure_gap(n_eval: npt.ArrayLike, n_target: npt.ArrayLike, n_selected: npt.ArrayLike) -> Gap:
    """The gap from counts int[K + 1] of guide, target and selected rows (see `cluster_counts`).

    ValueError if the guide set is empty.

    >>> gap = measure_gap([1, 1, 0], [4, 0, 0], [0, 4, 0])
    >>> round(gap.js_before, 6), gap.js_after
    (0.311278, 0.0)
    """
    n_eval, n_target = as_counts(n_eval, "n_eval"), as_counts(n_target, "n_target")
    before, after = n_target, n_target + as_counts(n_selected, "n_selected")
    return Gap(
        probabilities(n_eval),
        _share(before),
        _share(after),
        _distance(n_eval, before),
        _distance(n_eval, after),
    )


def _share(counts: npt.NDArray[np.int64]) -> FloatArray:
    return probabilities(counts) if counts.any() else np.zeros(len(counts))


def _distance(n_eval: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> float:
    return js_divergence(n_eval, counts) if counts.any() else 1.0
