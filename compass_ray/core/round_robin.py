"""Choice of corrections for an update: round robin over API keys, caps, and which of several near duplicates is kept.

The order of arrival has no effect, and no key has a second turn before every other key had its first. Early or many
corrections of one key therefore get no advantage. Not in COMPASS, section 3.3, which has no labelled traffic.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, unit_rows
from compass_ray.core.near_duplicates import EmbeddingReader
from compass_ray.core.seeds import generator

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class RoundRobinOrder:
    """`position` int64[n] of items in order of turn, and their `turn` int64[n]: 0 is the first of a key."""

    position: IntArray
    turn: IntArray


def round_robin_order(names: Sequence[str], keys: Sequence[str], seed: int) -> RoundRobinOrder:
    """Every key's first item, then every key's second, and so on; order within a key and a turn is random, seeded by name.

    ValueError unless names are distinct and each has one key.

    >>> found = round_robin_order(["a", "b", "c", "d"], ["flood", "flood", "flood", "one"], seed=0)
    >>> sorted(found.position[:2].tolist())[1], found.turn.tolist()
    (3, [0, 0, 1, 2])
    """
    if len(set(names)) != len(names) or len(names) != len(keys):
        raise ValueError(f"{len(names)} names, {len(set(names))} distinct, and {len(keys)} keys; expected as many of each.")
    random = [generator(seed, "correction", name).random() for name in names]
    shuffled = sorted(range(len(names)), key=lambda i: (random[i], names[i]))
    turns_by_key: dict[str, int] = defaultdict(int)
    turn = np.zeros(len(names), np.int64)
    for i in shuffled:
        turn[i] = turns_by_key[keys[i]]
        turns_by_key[keys[i]] += 1
    order = sorted(shuffled, key=lambda i: turn[i])
    position = np.array(order, np.int64)
    return RoundRobinOrder(position, turn[position])


def max_corrections(rows: int, share: float) -> int:
    """Maximum number of corrections next to `rows` other rows, so that their share of all rows is at most `share` in [0, 1).

    >>> max_corrections(9, 0.1), max_corrections(8, 0.1), max_corrections(10, 0.5)
    (1, 0, 10)
    """
    if rows < 0 or not 0.0 <= share < 1.0:
        raise ValueError(f"rows is {rows} and share {share}; expected 0 or more rows and a share from 0 to below 1.")
    count = int(share * rows / (1.0 - share)) + 1
    while count and count / (rows + count) > share:
        count -= 1
    return count


def find_kept_duplicates(embeddings: npt.ArrayLike, tau: float) -> IntArray:
    """For each row of (n, d), in order of priority, the earlier kept row with cosine above `tau`; -1 if the row is kept.

    A row is dropped only for a row that is kept. ValueError on NaN and zero rows.

    >>> find_kept_duplicates([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], tau=0.7).tolist()
    [-1, 0, -1]
    """
    rows = unit_rows(embeddings) if np.size(embeddings) else np.zeros((0, 1), np.float32)
    duplicate_of = np.full(len(rows), -1, np.int64)
    kept: list[int] = []
    for i, row in enumerate(rows):
        near = np.flatnonzero(rows[kept] @ row > tau)
        if len(near):
            duplicate_of[i] = kept[near[0]]
        else:
            kept.append(i)
    return duplicate_of


def nearest_cosine(embeddings: npt.ArrayLike, others: EmbeddingReader, n: int) -> FloatArray:
    """Cosine float64[m] of each row of (m, d) to the nearest of `n` others, read in blocks; -1 without others.

    >>> axes = np.array([[0.0, 1.0], [0.6, 0.8]], np.float32)
    >>> nearest_cosine([[1.0, 0.0]], lambda i: axes[i], 2).round(6).tolist()
    [0.6]
    """
    rows = unit_rows(embeddings)
    cosine = np.full(len(rows), -1.0)
    for start in range(0, n, BLOCK_ROWS):
        block = unit_rows(others(np.arange(start, min(start + BLOCK_ROWS, n), dtype=np.int64)), "others")
        cosine = np.maximum(cosine, (rows @ block.T).max(axis=1))
    return cosine
