"""Distributional anchors: training rows that an update replays to avoid forgetting.

Anchors are the most prototypical rows of the clusters with most training rows, in proportion to the rows of these
clusters. The choice is deterministic. COMPASS, section 3.3.3 (anchor replay).
"""

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_scores
from compass_ray.core.rounding import round_to_total
from compass_ray.core.water_filling import water_fill

SHARE = 0.05
DENSE = 0.5


def choose_anchors(labels: npt.ArrayLike, proto: npt.ArrayLike, *, share: float = SHARE, dense: float = DENSE) -> IntArray:
    """Positions int64 of the anchors among n training rows with clusters `labels` and scores `proto` [n].

    There are at most ceil(share * n) anchors. They come from the smallest number of clusters, largest first, that
    hold the fraction `dense` of all rows outside noise, or from more clusters if these have too few rows. Ties go to
    the earlier row. ValueError if every row is noise.

    >>> choose_anchors([0, 0, 0, 1, -1], [0.5, 0.9, 0.7, 1.0, 0.0], share=0.3).tolist()
    [1, 2]
    """
    clusters = np.asarray(labels, dtype=np.int64)
    scores = as_scores(proto, len(clusters), "proto")
    if not 0.0 < share <= 1.0 or not 0.0 < dense <= 1.0:
        raise ValueError(f"share is {share} and dense {dense}; expected fractions above 0, up to 1.")
    names, counts = np.unique(clusters[clusters >= 0], return_counts=True)
    if len(names) == 0:
        raise ValueError(f"all {len(clusters)} training rows are noise, so none can be an anchor; cluster the pool again.")
    wanted = min(int(np.ceil(share * len(clusters))), int(counts.sum()))
    quota = _quota(counts.astype(np.float64), wanted, dense)
    chosen = [_top(clusters, scores, int(k), int(q)) for k, q in zip(names, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def draw_by_cluster(labels: npt.ArrayLike, count: int, rng: np.random.Generator) -> IntArray:
    """Positions int64, ascending, of `count` rows drawn among n rows with clusters `labels`, noise being one of them.

    Each cluster gives rows in proportion to its size, by unbiased rounding, so every row is drawn with equal probability. All
    rows if there are at most `count`.

    >>> rng = np.random.default_rng(0)
    >>> len(draw_by_cluster([0] * 60 + [1] * 30 + [-1] * 10, 10, rng))
    10
    """
    clusters = np.asarray(labels, dtype=np.int64)
    if count >= len(clusters):
        return np.arange(len(clusters))
    names, sizes = np.unique(clusters, return_counts=True)
    quota = round_to_total(sizes * count / len(clusters), count, rng=rng)
    drawn = [rng.choice(np.flatnonzero(clusters == k), q, replace=False) for k, q in zip(names, quota, strict=True)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _quota(counts: FloatArray, wanted: int, dense: float) -> IntArray:
    """int64[K]: `wanted` shared among the dense clusters by size, the largest remainders rounded up."""
    order = np.argsort(-counts, kind="stable")
    cumulative = np.cumsum(counts[order])
    last = int(np.searchsorted(cumulative, max(dense * cumulative[-1], wanted)))
    rate = np.zeros(len(counts))
    rate[order[: last + 1]] = counts[order[: last + 1]]
    exact = np.round(water_fill(rate, np.zeros(len(counts)), counts, float(wanted)), 9)
    quota = np.floor(exact).astype(np.int64)
    up = np.argsort(quota - exact, kind="stable")[: wanted - int(quota.sum())]
    quota[up] += 1
    return quota


def _top(clusters: IntArray, scores: FloatArray, cluster: int, quota: int) -> IntArray:
    members = np.flatnonzero(clusters == cluster)
    return members[np.argsort(-scores[members], kind="stable")[:quota]].astype(np.int64)
