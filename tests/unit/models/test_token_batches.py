"""Batches by tokens: every row once, within the budget, and only neighbours by length together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.models.token_batches import token_batches

LENGTHS = st.lists(st.integers(0, 600), max_size=80)


@given(LENGTHS, st.integers(1, 1500), st.integers(1, 40))
def test_every_row_is_in_one_batch_within_the_limits(lengths: list[int], max_tokens: int, max_rows: int) -> None:
    found = np.array(lengths, np.int64)
    batches = [batch.tolist() for batch in token_batches(found, max_tokens, max_rows)]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_tokens or max(lengths[i] for i in batch) == 0


@given(LENGTHS, st.integers(1, 1500))
def test_no_row_of_another_batch_is_between_the_rows_of_one(lengths: list[int], max_tokens: int) -> None:
    ordered = [lengths[i] for batch in token_batches(np.array(lengths, np.int64), max_tokens, 100) for i in batch]
    assert ordered == sorted(lengths, reverse=True)
