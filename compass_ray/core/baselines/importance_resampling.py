"""DSIR: importance resampling of rows by the likelihood ratio of their words, guide set to pool (Xie et al. 2023).

Rows are drawn without replacement, each in proportion to its importance weight among the remaining rows. Adding Gumbel noise
to the log weights and taking the highest does that in one pass. Texts come in as counts of hashed words and pairs of words.
An additional baseline to those of COMPASS, section 4.3.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from compass_ray.core.array_checks import FloatArray
from compass_ray.core.baselines.pickers import PickedRows, TopKPicker

SMOOTHING = 1.0
"""Added to the count of every bucket: a guide set is a few hundred prompts, and most of 10,000 buckets are empty in it."""


def importance_log_weights(candidates: Any, guide: Any, *, smoothing: float = SMOOTHING) -> FloatArray:
    """Log importance weight of each candidate, float64[n]: log p(row | guide set) - log p(row | candidates).

    `candidates` (n, b) and `guide` (g, b) hold counts per bucket, dense or scipy sparse; both distributions draw
    buckets independently. ValueError if b differs or the guide set is empty.

    >>> importance_log_weights(np.array([[2, 0], [0, 1]]), np.array([[3, 0]])).round(4).tolist()
    [0.5754, -0.6931]
    """
    if candidates.shape[1:] != guide.shape[1:] or not guide.shape[0] or smoothing <= 0:
        raise ValueError(
            f"candidates {candidates.shape}, guide set {guide.shape}, smoothing {smoothing}; expected counts of the same "
            f"buckets, at least one guide prompt, and a smoothing above 0."
        )
    ratio = np.log(_shares(guide, smoothing)) - np.log(_shares(candidates, smoothing))
    return np.asarray(candidates @ ratio, np.float64).ravel()


def _shares(counts: Any, smoothing: float) -> FloatArray:
    """Share of each bucket in all counts, float64[b], summing to one."""
    total = np.asarray(counts.sum(axis=0), np.float64).ravel() + smoothing
    return np.asarray(total / total.sum())


@dataclass(frozen=True)
class ImportanceResamplingPicker:
    """Draws in proportion to importance weights, without replacement; `log_weight` float64[n] is also the score."""

    log_weight: FloatArray

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Draw by the Gumbel trick."""
        drawn = TopKPicker(self.log_weight + rng.gumbel(size=len(self.log_weight)))(count, rng).position
        return PickedRows(drawn, self.log_weight[drawn])
