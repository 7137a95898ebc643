"""Similarity to the nearest guide prompt, against a plain loop; blocks change nothing."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from compass_ray.core.baselines import nearest
from compass_ray.core.baselines.nearest import guide_similarity


def test_each_row_has_the_cosine_of_its_nearest_prompt() -> None:
    rng = np.random.default_rng(0)
    rows, guide = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(5, 6)).astype(np.float32)
    expected = [max(1.0 - cosine(row.astype(float), prompt.astype(float)) for prompt in guide) for row in rows]
    assert guide_similarity(lambda i: rows[i], 40, guide) == pytest.approx(expected, abs=2e-6)


def test_blocks_change_nothing_and_only_blocks_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows, guide = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(3, 4))
    whole = guide_similarity(lambda i: rows[i], 30, guide)
    read: list[int] = []

    def block(i: np.ndarray) -> np.ndarray:
        read.append(len(i))
        return rows[i]

    monkeypatch.setattr(nearest, "BLOCK_ROWS", 7)
    assert guide_similarity(block, 30, guide).tolist() == whole.tolist()
    assert read == [7, 7, 7, 7, 2]


def test_without_candidates_the_result_is_empty_and_without_prompts_an_error() -> None:
    assert guide_similarity(lambda i: np.ones((len(i), 2), np.float32), 0, [[1.0, 0.0]]).tolist() == []
    with pytest.raises(ValueError, match="guide"):
        guide_similarity(lambda i: np.ones((len(i), 2), np.float32), 1, np.zeros((0, 2)))
