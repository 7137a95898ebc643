"""Similarity of languages from feature vectors in groups such as syntax or geography (COMPASS, section 4.3).

A group counts for a pair only if both languages have a vector in it, so unknown features do not change a similarity.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray


def cosine_matrix(vectors: npt.ArrayLike) -> FloatArray:
    """Cosine float64 (n, n) of every pair of rows of `vectors` (n, d); NaN in rows and columns of zero vectors.

    ValueError on values that are not finite.

    >>> cosine_matrix([[1, 0], [1, 1], [0, 0]]).round(6).tolist()
    [[1.0, 0.707107, nan], [0.707107, 1.0, nan], [nan, nan, nan]]
    """
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"vectors have shape {rows.shape}; give one finite vector per language, shape (n, d), zeros if unknown.")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, length, out=np.full_like(rows, np.nan), where=length > 0)
    return np.asarray(np.clip(unit @ unit.T, -1.0, 1.0))


def mean_similarity(groups: Sequence[npt.ArrayLike]) -> FloatArray:
    """Mean over groups (n, d_g) of the cosines float64 (n, n); NaN for pairs that share no group.

    >>> mean_similarity([[[1, 0], [1, 0]], [[1, 0], [0, 1]]]).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    if not groups:
        raise ValueError("no feature group is given; expected one or more, such as syntax and geography.")
    each = np.stack([cosine_matrix(group) for group in groups])
    known = ~np.isnan(each)
    total = np.where(known, each, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def top_k_names(scores: npt.ArrayLike, names: Sequence[str], k: int) -> list[str]:
    """The `k` names of the highest scores, best first, ties in order of name; NaN is never chosen.

    >>> top_k_names([0.2, 0.9, float("nan"), 0.9], ["ar", "tr", "xx", "ky"], 3)
    ['ky', 'tr', 'ar']
    """
    pairs = [(-float(score), name) for score, name in zip(np.asarray(scores, np.float64), names, strict=True)]
    return [name for score, name in sorted(pair for pair in pairs if not np.isnan(pair[0]))[:k]]
