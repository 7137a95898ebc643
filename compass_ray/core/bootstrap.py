"""Bootstrap intervals of a mean over items, paired where two systems answered the same items.

Each stratum (language) is resampled separately, and all strata have equal weight. The interval is therefore that of the
mean over languages of the mean over items. Resampling n items draws multinomial counts of their distinct values, so no
n x resamples index is made.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, as_scores


@dataclass(frozen=True)
class Interval:
    """A mean with the percentile interval `low` to `high`, in the unit of the items."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: npt.ArrayLike,
    *,
    strata: npt.ArrayLike | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Interval:
    """Interval of the mean of `values` float[n], 1 for a correct item; with `strata` [n], of the mean of the strata's means.

    ValueError without items, on NaN, or on strata of another length.

    >>> interval = bootstrap([1, 1, 0, 1], rng=np.random.default_rng(0))
    >>> interval.mean, interval.low, interval.high
    (0.75, 0.25, 1.0)
    """
    items = as_scores(values, np.size(values), "values")
    if items.size == 0 or resamples < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"{items.size} items, resamples {resamples}, confidence {confidence}; need 1+, 1+, in (0, 1).")
    groups = _groups(items, strata)
    means = np.mean([_resampled_means(group, resamples, rng) for group in groups], axis=0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(np.mean([group.mean() for group in groups])), float(low), float(high))


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Interval:
    """Interval of the mean of a - b, where `a` and `b` float[n] are two systems on the same items.

    With `weights` float[n] it is the interval of the weighted mean; items are resampled with their weighted contribution.

    >>> paired_bootstrap([1, 1, 1, 0], [1, 1, 0, 0], rng=np.random.default_rng(0)).mean
    0.25
    >>> paired_bootstrap([1, 1, 1, 0], [1, 1, 0, 0], weights=[1, 1, 4, 2], rng=np.random.default_rng(0)).mean
    0.5
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a has shape {np.shape(a)} and b {np.shape(b)}; pair the items of both systems first.")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if weights is not None:
        share = as_scores(weights, difference.size, "weights")
        difference = difference * share / share.mean()
    return bootstrap(difference, strata=strata, resamples=resamples, confidence=confidence, rng=rng)


def _groups(items: FloatArray, strata: npt.ArrayLike | None) -> list[FloatArray]:
    if strata is None:
        return [items]
    labels = np.asarray(strata)
    if labels.shape != items.shape:
        raise ValueError(f"{labels.size} strata for {items.size} items; expected one per item.")
    return [items[labels == label] for label in np.unique(labels)]


def _resampled_means(items: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """float64[resamples]: the mean of n items drawn with replacement, each time."""
    values, counts = np.unique(items, return_counts=True)
    draws = rng.multinomial(len(items), counts / len(items), size=resamples)
    return np.asarray(draws @ values / len(items))
