"""Nearest: the rows with the highest similarity to their nearest guide prompt.

Similarity is to the nearest prompt, because the mean prompt of many subjects is near no subject. The target's own rows have
no influence. Candidates are read in blocks. An additional baseline to those of COMPASS, section 4.3.
"""

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, unit_rows
from compass_ray.core.near_duplicates import EmbeddingReader

BLOCK_ROWS = 4096


def guide_similarity(rows: EmbeddingReader, n: int, guide: npt.ArrayLike) -> FloatArray:
    """Cosine float64[n] of each of `n` candidates to its nearest guide prompt, given guide embeddings (g, d).

    `rows` gives embeddings by position, int64[m] -> (m, d), and is called for one block at a time. Rounded to 6
    decimals, the precision of float32. ValueError on NaN, zero rows and an empty guide set.

    >>> axes = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    >>> guide_similarity(lambda i: axes[i], 3, [[1, 0], [0.8, 0.6]]).tolist()
    [1.0, 0.96, 0.6]
    """
    prompts = unit_rows(guide, "guide")
    if not len(prompts):
        raise ValueError("the guide set is empty; give the embedding of one guide prompt or more, shape (g, d).")
    similarity = np.zeros(n)
    for start in range(0, n, BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, n), dtype=np.int64)
        similarity[block] = (unit_rows(rows(block)) @ prompts.T).max(axis=1)
    return np.asarray(np.round(np.clip(similarity, -1.0, 1.0), 6))
