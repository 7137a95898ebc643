"""Near duplicates (neighbours) among the rows already drawn, found by blocks of dot products.

Only scored rows are read, and they are compared with drawn rows only; the n x n matrix of COMPASS, section 3.2.3 is never
made. A neighbour is a row with cosine above tau. For the penalty of a neighbour see `sampling`.
"""

from collections.abc import Callable

import numpy as np

from compass_ray.core.array_checks import Float32Array, IntArray, unit_rows

REFRESH_ROWS = 4096

EmbeddingReader = Callable[[IntArray], Float32Array]
"""Embeddings by position: int64[m] -> float32 (m, d); rows need not have length 1."""


class DrawnNeighbours:
    """Counts, for any candidate, how many rows drawn so far are its neighbours.

    `base` int64[n] holds the counts of the last `refresh` for every candidate. `count` adds the rows drawn
    since then for the given candidates, at the cost of one small matrix product.
    """

    def __init__(self, rows: EmbeddingReader, n: int, quota: int, tau: float) -> None:
        self.base = np.zeros(n, np.int64)
        self._rows, self._tau, self._quota = rows, tau, quota
        self._recent: Float32Array = np.empty((0, 0), np.float32)
        self._n_recent = 0

    def read(self, positions: IntArray) -> Float32Array:
        """Unit rows (m, d) at `positions`; ValueError on NaN."""
        return unit_rows(self._rows(positions))

    def count(self, positions: IntArray, vectors: Float32Array) -> IntArray:
        """Drawn neighbours int64[m] of candidates at `positions` with unit rows `vectors` (m, d)."""
        return self.base[positions] + self._near_recent(vectors)

    def between(self, vectors: Float32Array) -> IntArray:
        """int64 (m, m): 1 where two of the given rows are neighbours."""
        return np.asarray(vectors @ vectors.T > self._tau, dtype=np.int64)

    def add(self, vector: Float32Array) -> None:
        """Record that the unit row `vector` (d,) has been drawn."""
        if self._recent.size == 0:
            self._recent = np.empty((self._quota, len(vector)), np.float32)
        self._recent[self._n_recent] = vector
        self._n_recent += 1

    def refresh(self, undrawn: IntArray) -> None:
        """Update `base` for the candidates at `undrawn`, which reads all of them."""
        for start in range(0, len(undrawn) if self._n_recent else 0, REFRESH_ROWS):
            block = undrawn[start : start + REFRESH_ROWS]
            self.base[block] += self._near_recent(self.read(block))
        self._n_recent = 0

    def _near_recent(self, vectors: Float32Array) -> IntArray:
        if self._n_recent == 0:
            return np.zeros(len(vectors), np.int64)
        cosine = vectors @ self._recent[: self._n_recent].T
        return np.asarray(np.count_nonzero(cosine > self._tau, axis=1), dtype=np.int64)


class NoNeighbours(DrawnNeighbours):
    """For delta = 0: no row is read and no row has a neighbour."""

    def __init__(self, n: int) -> None:
        super().__init__(lambda positions: np.empty((len(positions), 0), np.float32), n, 0, np.inf)

    def read(self, positions: IntArray) -> Float32Array:
        """Rows without dimensions, float32 (m, 0)."""
        return self._rows(positions)

    def add(self, vector: Float32Array) -> None:
        """Nothing to record."""
