"""Nearest: the rows most similar to the guide set, each by the guide prompt it is nearest to.

Key property: similarity to the nearest prompt, not to the mean of all, so that a guide set of many subjects does not ask
for rows of none of them. It takes the best whatever the target already has: there is no gap in it. Beside COMPASS,
section 4.3. Reads candidates in blocks, never all at once.
"""

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, unit_rows
from compass_ray.core.near_duplicates import EmbeddingReader

BLOCK_ROWS = 4096


def guide_similarity(rows: EmbeddingReader, n: int, guide: npt.ArrayLike) -> FloatArray:
    """Cosine float64[n] of each of `n` candidates to its nearest guide prompt, given guide embeddings (g, d).

    `rows` gives embeddings by position, int64[m] -> (m, d), and is asked for one block at a time. Rounded to 6
    decimals, below which float32 says nothing. ValueError on NaN, zero rows and an empty guide set.

    >>> axes = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    >>> guide_similarity(lambda i: axes[i], 3, [[1, 0], [0.8, 0.6]]).tolist()
    [1.0, 0.96, 0.6]
    """
    prompts = unit_rows(guide, "guide")
    if not len(prompts):
        raise ValueError("the guide set is empty; give the embedding of one guide prompt or more, shape (g, d).")
    found = np.zeros(n)
    for start in range(0, n, BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, n), dtype=np.int64)
        found[block] = (unit_rows(rows(block)) @ prompts.T).max(axis=1)
    return np.asarray(np.round(np.clip(found, -1.0, 1.0), 6))
