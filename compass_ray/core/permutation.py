"""Two-sample permutation test: is a window further from the reference than chance takes one of its size?

Key property: exact at any number of rows below 10^9 and any of clusters, because under the null hypothesis window and reference
are one heap dealt out at random. Cluster counts of a random deal are multivariate hypergeometric, so no label
is ever shuffled. Not in the paper, whose fixed threshold knows nothing of the size of a window.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_counts
from compass_ray.core.distribution import js_divergence, js_divergences

RESAMPLES = 2000
# Deals that give the observed counts again must count as ties, whatever the order of summation.
TIE = 1e-12
# A hypergeometric draw took as long as dealing 8 rows one by one (numpy 2.4: 68 ns and 8 ns).
_ROWS_PER_DRAW = 8
# Dealing rows one by one holds them all.
_MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class PermutationTest:
    """`divergence` in bits, `p_value` in [1 / (resamples + 1), 1], and how many deals it rests on."""

    divergence: float
    p_value: float
    resamples: int


def permutation_test(
    reference: npt.ArrayLike, window: npt.ArrayLike, *, resamples: int = RESAMPLES, rng: np.random.Generator
) -> PermutationTest:
    """Test of counts int[K] `reference` and `window`: p = (1 + deals as far apart) / (resamples + 1).

    ValueError on empty counts, different lengths, counts that are not whole.

    >>> permutation_test([30, 30], [30, 30], rng=np.random.default_rng(0)).p_value
    1.0
    >>> permutation_test([60, 0], [0, 60], rng=np.random.default_rng(0)).p_value < 0.001
    True
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected at least 1 (2,000 gives p-values down to 0.0005).")
    reference, window = as_counts(reference, "reference"), as_counts(window, "window")
    observed = js_divergence(reference, window)
    pooled = (reference + window)[reference + window > 0]
    dealt = _deals(pooled, int(window.sum()), resamples, rng)
    as_far = int(np.count_nonzero(_divergences(pooled, dealt) >= observed - TIE))
    return PermutationTest(observed, (1 + as_far) / (resamples + 1), resamples)


def _deals(pooled: IntArray, size: int, resamples: int, rng: np.random.Generator) -> IntArray:
    """Counts int64[resamples, K] of random windows of `size` rows, by whichever of numpy's ways is faster."""
    rows = int(pooled.sum())
    row_by_row = min(size, rows - size) < _ROWS_PER_DRAW * len(pooled) and rows <= _MOST_ROWS
    return rng.multivariate_hypergeometric(pooled, size, size=resamples, method="count" if row_by_row else "marginals")


def _divergences(pooled: IntArray, dealt: IntArray) -> FloatArray:
    """Divergence in bits, float64[B], of dealt counts int64[B, K] from what is left of `pooled` int64[K].

    A cluster's part of it depends on its dealt count alone, so a table of the parts saves the logarithms.
    """
    if int(pooled.max()) > len(dealt):
        return js_divergences(pooled - dealt, dealt)
    table = _parts(pooled, int(dealt[0].sum()))
    places = dealt + np.arange(len(pooled)) * table.shape[1]
    return np.asarray(table.ravel().take(places).sum(axis=-1))


def _parts(pooled: IntArray, size: int) -> FloatArray:
    """Part of the divergence, float64[K, most + 1], of each cluster for every count that it could be dealt."""
    count = np.arange(int(pooled.max()) + 1)
    dealt = np.broadcast_to(count / size, (len(pooled), len(count)))
    left = np.maximum(pooled[:, None] - count, 0) / (int(pooled.sum()) - size)
    return np.asarray((_p_log_p(left) + _p_log_p(dealt)) / 2 - _p_log_p((left + dealt) / 2))


def _p_log_p(p: FloatArray) -> FloatArray:
    return np.asarray(p * np.log2(p, out=np.zeros_like(p), where=p > 0))
