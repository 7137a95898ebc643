"""Which rows a sweep looks at: a bounded, seeded sample in which every stratum has its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compass_ray.clustering.protocol import Int64


def sample_stratified(n: int, at_most: int, rng: np.random.Generator, strata: Sequence[str] | None = None) -> Int64:
    """Ascending indices int64[m] of at most ``at_most`` of n rows.

    ``strata`` names each row's stratum, such as its language: each is sampled in proportion to its rows, and none
    is left out as long as there is a place for each.

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
        np.concatenate([rows[:places] for rows, places in zip(members, proportional_quotas(counts, at_most), strict=True)])
    )


def proportional_quotas(counts: Int64, places: int) -> Int64:
    """int64[S] with sum ``places``, in proportion to ``counts`` int64[S] and at least 1; the smallest go without if
    there are more of them than places.

    >>> proportional_quotas(np.array([90, 9, 1]), 10).tolist(), proportional_quotas(np.array([5, 1, 7]), 2).tolist()
    ([8, 1, 1], [1, 0, 1])
    """
    if places < len(counts):
        given: Int64 = np.zeros(len(counts), np.int64)
        given[np.argsort(-counts, kind="stable")[:places]] = 1
        return given
    exact = counts * (places / counts.sum())
    given = np.maximum(np.floor(exact).astype(np.int64), 1)
    missing = places - int(given.sum())
    given[np.argsort(given - exact, kind="stable")[: max(missing, 0)]] += 1
    for _ in range(-missing):
        given[given.argmax()] -= 1
    return given
