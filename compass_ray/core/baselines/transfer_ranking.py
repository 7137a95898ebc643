"""Features of a ranker of transfer languages, and measures of a ranking (Lin et al. 2019; COMPASS, section 4.3).

All features are known before any training: of the data (sizes, type-token ratios, overlap of words and subwords) and of the
languages (distances). The ranker itself is `models.transfer_ranker`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray

MEASURED = ("target_rows", "transfer_rows", "target_ttr", "transfer_ttr", "word_overlap", "subword_overlap")
"""Features measured on a pair of data sets."""

DISTANCES = ("geographic", "genetic", "inventory", "syntactic", "phonological", "featural")
"""Distances between languages, 1 - cosine of their vectors; NaN if a language has none."""

FEATURES = (*MEASURED, "row_ratio", "ttr_distance", *DISTANCES)
"""Columns of `ranker_features`."""

GRADES = 10
"""Grade of a target's best transfer language; each next one has one less, down to 0."""


@dataclass(frozen=True)
class Corpus:
    """One language's data: number of `rows` and word `tokens`, and its distinct `words` and subword `pieces`."""

    rows: int
    tokens: int
    words: frozenset[str]
    pieces: frozenset[str]

    @property
    def ttr(self) -> float:
        """Type-token ratio; 0 without tokens."""
        return len(self.words) / self.tokens if self.tokens else 0.0


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over the sum of sizes, in [0, 1/2]; 0 if both sets are empty.

    >>> overlap(frozenset("abc"), frozenset("bcd"))
    0.3333333333333333
    """
    return len(a & b) / max(len(a) + len(b), 1)


def measure_pair(target: Corpus, transfer: Corpus) -> dict[str, float]:
    """The features in `MEASURED` of one pair of data sets."""
    values = (
        float(target.rows),
        float(transfer.rows),
        target.ttr,
        transfer.ttr,
        overlap(target.words, transfer.words),
        overlap(target.pieces, transfer.pieces),
    )
    return dict(zip(MEASURED, values, strict=True))


def ranker_features(measured: npt.ArrayLike, distances: npt.ArrayLike) -> FloatArray:
    """Columns of `FEATURES`, float64 (n, 14), from (n, 6) measured features and (n, 6) distances.

    Ratios over zero are NaN, which the ranker treats as unknown.

    >>> ranker_features([[10, 20, 0.5, 0.25, 0.1, 0.2]], [[0, 0, 0, 0, 0, 0]])[0, 6:8].tolist()
    [2.0, 0.25]
    """
    pairs, far = np.asarray(measured, np.float64), np.asarray(distances, np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != len(MEASURED) or far.shape != (len(pairs), len(DISTANCES)):
        raise ValueError(f"measured {pairs.shape}, distances {far.shape}; expected (n, {len(MEASURED)}), (n, {len(DISTANCES)}).")
    ratio = _ratio(pairs[:, 1], pairs[:, 0])
    ttr_distance = (1.0 - _ratio(pairs[:, 3], pairs[:, 2])) ** 2
    return np.column_stack([pairs, ratio, ttr_distance, far])


def grade_gains(gains: npt.ArrayLike) -> IntArray:
    """Grade int64[n] of one target's transfer languages by gain: `GRADES` for the best, one less for each next one, at least 0.

    Equal gains get the same, highest grade.

    >>> grade_gains([0.1, 0.3, 0.1, -0.2]).tolist()
    [9, 10, 9, 7]
    """
    gain = np.asarray(gains, np.float64)
    better = (gain[None, :] > gain[:, None]).sum(axis=1)
    return np.asarray(np.maximum(GRADES - better, 0), np.int64)


def ndcg(grade: npt.ArrayLike, scores: npt.ArrayLike, k: int) -> float:
    """Discounted gain (2^grade - 1) of the `k` highest scores over that of the best `k`; ties in order of position.

    >>> ndcg([10, 9, 8], [0.3, 0.2, 0.1], 3), round(ndcg([10, 9, 8], [0.1, 0.2, 0.3], 3), 4)
    (1.0, 0.7393)
    """
    worth = np.exp2(np.asarray(grade, np.float64)) - 1.0
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")[:k]
    ideal = float(np.sort(worth)[::-1][:k] @ _discounts(min(k, len(worth))))
    return float(worth[order] @ _discounts(len(order))) / ideal if ideal > 0 else 0.0


def expected_ndcg(grade: npt.ArrayLike, k: int) -> float:
    """Mean of `ndcg` over all orders.

    >>> round(expected_ndcg([10, 9, 8], 3), 4)
    0.8627
    """
    worth = np.exp2(np.asarray(grade, np.float64)) - 1.0
    discounts = _discounts(min(k, len(worth)))
    ideal = float(np.sort(worth)[::-1][:k] @ discounts)
    return float(worth.mean() * discounts.sum()) / ideal if ideal > 0 else 0.0


def _discounts(k: int) -> FloatArray:
    return np.asarray(1.0 / np.log2(np.arange(2, k + 2)))


def _ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0))
