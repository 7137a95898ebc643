"""A bounded, seeded sample of rows in which every stratum has its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compass_ray.clustering.protocol import Int64


def sample_stratified(n: int, at_most: int, rng: np.random.Generator, strata: Sequence[str] | None = None) -> Int64:
    """Ascending indices int64[m] of at most ``at_most`` of n rows.

    ``strata`` is each row's stratum, such as its language. Each stratum is sampled in proportion to its rows. None is
    left out while the sample has room for all.

    >>> rows = sample_stratified(1000, 10, np.random.default_rng(0), ["en"] * 990 + ["mg"] * 10)
    >>> len(rows), int((rows >= 990).sum())
    (10, 1)
    """
    if n <= at_most:
        return np.arange(n)
    shuffled = rng.permutation(n)
    if strata is None:
        return np.sort(shuffled[:at_most])
    _, stratum, counts = np.unique(np.asarray(strata)[shuffled], return_inverse=True, return_counts=True)
    members = np.split(shuffled[np.argsort(stratum, kind="stable")], np.cumsum(counts)[:-1])
    return np.sort(
        np.concatenate([rows[:quota] for rows, quota in zip(members, proportional_quotas(counts, at_most), strict=True)])
    )


def proportional_quotas(counts: Int64, total: int) -> Int64:
    """int64[S] with sum ``total``, in proportion to ``counts`` int64[S] and at least 1.

    If there are more strata than ``total``, the smallest ones get 0.

    >>> proportional_quotas(np.array([90, 9, 1]), 10).tolist(), proportional_quotas(np.array([5, 1, 7]), 2).tolist()
    ([8, 1, 1], [1, 0, 1])
    """
    if total < len(counts):
        quotas: Int64 = np.zeros(len(counts), np.int64)
        quotas[np.argsort(-counts, kind="stable")[:total]] = 1
        return quotas
    exact = counts * (total / counts.sum())
    quotas = np.maximum(np.floor(exact).astype(np.int64), 1)
    missing = total - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[: max(missing, 0)]] += 1
    for _ in range(-missing):
        quotas[quotas.argmax()] -= 1
    return quotas
