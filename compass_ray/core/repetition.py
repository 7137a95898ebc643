"""Repetition of rows if a cluster has fewer candidates than its quota, and of own rows in the control `own_repeated`.

Every candidate is used once before any is used twice, and none more than three times. Use n (from 0) has weight 0.5^n.
COMPASS, section 3.2.3 (last paragraph). The sampler decides the order of rows. Own rows repeat without limit, with full weight.
"""

from dataclasses import dataclass

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray
from compass_ray.core.quotas import MAX_REPEATS

DECAY = 0.5


@dataclass(frozen=True)
class Repeats:
    """`position` int64[quota] into the candidates in order of drawing; `weight` float64[quota] of each use."""

    position: IntArray
    weight: FloatArray


def repeat_rows(n_candidates: int, quota: int) -> Repeats:
    """Uses of `n_candidates` rows, in order of drawing, that fill `quota`; ValueError above three uses each.

    >>> plan = repeat_rows(2, 5)
    >>> plan.position.tolist(), plan.weight.tolist()
    ([0, 1, 0, 1, 0], [1.0, 1.0, 0.5, 0.5, 0.25])
    """
    if quota < 0 or n_candidates < 0 or quota > MAX_REPEATS * n_candidates:
        raise ValueError(
            f"quota is {quota} for {n_candidates} candidates; expected 0 to {MAX_REPEATS * n_candidates} "
            f"(each row at most {MAX_REPEATS} times). Take the quota from allocate_quotas(..., overflow='repeat')."
        )
    use = np.arange(quota, dtype=np.int64)
    return Repeats(use % max(n_candidates, 1), DECAY ** (use // max(n_candidates, 1)).astype(np.float64))


def repeat_evenly(n: int, count: int, rng: np.random.Generator) -> IntArray:
    """`count` further uses of `n` rows, int64[count]: complete passes in order, and a random part of the last one.

    None without rows.

    >>> repeat_evenly(2, 5, np.random.default_rng(0)).tolist()
    [0, 1, 0, 1, 0]
    """
    if not n:
        return np.zeros(0, np.int64)
    passes, left = divmod(count, n)
    return np.concatenate([np.tile(np.arange(n), passes), np.sort(rng.permutation(n)[:left])]).astype(np.int64)
