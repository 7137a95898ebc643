"""Sign-flip test: is the mean difference over languages further from 0 than chance explains?

Under the null hypothesis each language's difference has either sign with equal chance. Up to 2^16 flips are all counted, so
the p-value is exact; above, flips are sampled. It assumes symmetry and nothing about the distribution.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, as_scores

EXACT_UP_TO = 16
SAMPLED_FLIPS = 100_000
# Flips with the observed mean must count as ties, whatever the order of summation.
TIE = 1e-12


@dataclass(frozen=True)
class SignFlipTest:
    """`mean` difference, two-sided `p_value`, and the number of `flips` that it counts."""

    mean: float
    p_value: float
    flips: int


def sign_flip_test(differences: npt.ArrayLike, *, rng: np.random.Generator | None = None) -> SignFlipTest:
    """Test differences float64[n], one for each language; `rng` draws the flips of more than 16.

    ValueError without differences, on NaN, and on more than 16 without `rng`.

    >>> sign_flip_test([0.2, 0.1, 0.3, 0.1]).p_value
    0.125
    """
    values = as_scores(differences, np.size(differences), "differences")
    if not len(values):
        raise ValueError("there are no differences; expected one for each language.")
    observed = abs(values.sum()) * (1 - TIE)
    if len(values) <= EXACT_UP_TO:
        sums = _all_sums(values)
        return SignFlipTest(float(values.mean()), float(np.mean(np.abs(sums) >= observed)), len(sums))
    if rng is None:
        raise ValueError(f"{len(values)} differences have 2^{len(values)} flips; give rng to sample them.")
    sums = rng.choice(np.array([-1.0, 1.0]), size=(SAMPLED_FLIPS, len(values))) @ values
    extreme = int(np.count_nonzero(np.abs(sums) >= observed))
    return SignFlipTest(float(values.mean()), (1 + extreme) / (SAMPLED_FLIPS + 1), SAMPLED_FLIPS)


def _all_sums(values: FloatArray) -> FloatArray:
    """float64[2^n]: the sum under every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums
