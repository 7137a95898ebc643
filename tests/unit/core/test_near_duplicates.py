"""Neighbour counts by blocks against the full similarity matrix."""

import numpy as np
import pytest

from compass_ray.core.near_duplicates import REFRESH_ROWS, DrawnNeighbours


@pytest.mark.parametrize("refreshes", [0, 1, 3])
def test_counts_in_blocks_equal_the_full_matrix(refreshes: int) -> None:
    rng, n = np.random.default_rng(0), REFRESH_ROWS + 50
    rows = rng.normal(size=(n, 3)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    drawn, everyone = rng.choice(n, 30, replace=False), np.arange(n)
    near = DrawnNeighbours(lambda i: rows[i], n, len(drawn), 0.9)
    for part in np.array_split(drawn, refreshes + 1):
        near.refresh(everyone)
        for vector in near.read(part):
            near.add(vector)
    assert near.count(everyone, unit).tolist() == (unit @ unit[drawn].T > 0.9).sum(axis=1).tolist()
