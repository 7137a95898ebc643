"""Trend of a measure over quantiles: does it rise from the nearest rows to the farthest?

In one language: Spearman's rank correlation with the number of the quantile, and its exact one-sided p-value over all orders of
the quantiles. Over languages: the mean of the correlations, which orders tables as Page's L does, and the exact p-value of Page's
test, which permutes the quantiles within each language. That p-value is exact without equal values in a language. Not in the
paper.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray


@dataclass(frozen=True)
class QuantileTrend:
    """`correlation` in [-1, 1] and its one-sided `p_value`; None and 1 if the measure is equal in all quantiles."""

    correlation: float | None
    p_value: float


def measure_trend(values: npt.ArrayLike) -> QuantileTrend:
    """Trend of a measure float (languages, quantiles) or (quantiles,); a rise is the alternative.

    Negate a measure that is expected to fall. ValueError on NaN and on fewer than 3 quantiles.

    >>> trend = measure_trend([1.0, 2.0, 3.0, 5.0, 8.0])
    >>> trend.correlation, round(trend.p_value * 120)
    (1.0, 1)
    """
    table = np.atleast_2d(np.asarray(values, np.float64))
    if table.ndim != 2 or table.shape[1] < 3 or not len(table) or not np.isfinite(table).all():
        raise ValueError(f"values have shape {table.shape}; expected a finite value of each language in 3 or more quantiles.")
    ranks = _ranks(table)
    correlations = np.array([_correlation(row) for row in ranks if np.ptp(row)])
    if not len(correlations):
        return QuantileTrend(None, 1.0)
    p_value = _permutation_p(ranks[0]) if len(ranks) == 1 else _page_p(table)
    return QuantileTrend(float(correlations.mean()), p_value)


def _ranks(table: FloatArray) -> FloatArray:
    from scipy.stats import rankdata

    return np.asarray(rankdata(table, axis=1), np.float64)


def _correlation(ranks: FloatArray) -> float:
    return round(float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1]), 12)


def _permutation_p(ranks: FloatArray) -> float:
    """Share of all orders of the quantiles whose correlation is at least the observed one."""
    from scipy.stats import permutation_test

    number = np.arange(len(ranks), dtype=np.float64)
    found = permutation_test(
        (ranks,),
        lambda x, axis=-1: (x * number).sum(axis=axis),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    return float(found.pvalue)


def _page_p(table: FloatArray) -> float:
    from scipy.stats import page_trend_test

    return float(page_trend_test(table, method="exact").pvalue)
