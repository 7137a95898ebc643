"""Two-sample permutation test: is a window further from the reference than chance takes one of its size?

Key property: exact at any number of rows and clusters, because under the null hypothesis window and reference
are one heap dealt out at random. Cluster counts of a random deal are multivariate hypergeometric, so no label
is ever shuffled. Not in the paper, whose fixed threshold knows nothing of the size of a window.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.arrays import as_counts
from compass_ray.core.distribution import js_divergence, js_divergences

RESAMPLES = 2000
# Deals that give the observed counts again must count as ties, whatever the order of summation.
TIE = 1e-12


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
    pooled = reference + window
    dealt = rng.multivariate_hypergeometric(pooled, int(window.sum()), size=resamples, method="marginals")
    as_far = int(np.count_nonzero(js_divergences(pooled - dealt, dealt) >= observed - TIE))
    return PermutationTest(observed, (1 + as_far) / (resamples + 1), resamples)
