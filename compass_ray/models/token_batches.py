"""Batches of texts of similar length within a budget of tokens, padding included. Pure arithmetic on lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def token_batches(lengths: npt.NDArray[np.int64], max_tokens: int, max_rows: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of each batch, longest rows first, so that memory is largest in the first batch.

    A batch of n rows costs n times its longest row, at most ``max_tokens``. A longer row is a batch of its own.

    Args:
        lengths: int64[n], tokens of each row.
        max_tokens: budget of a batch with its padding.
        max_rows: maximum number of rows of a batch.

    >>> [each.tolist() for each in token_batches(np.array([2, 9, 3, 2]), max_tokens=6, max_rows=8)]
    [[1], [2, 0], [3]]
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        rows = min(max(max_tokens // longest, 1), max_rows)
        yield order[start : start + rows]
        start += rows
