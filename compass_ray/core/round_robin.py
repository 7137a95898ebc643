"""Whose corrections enter an update, and how many: turns by key, caps, and which of near duplicates stays.

Key property: the order of arrival changes nothing, and no key has a second turn before every other had its first; so neither
haste nor a flood wins. Beyond COMPASS, section 3.3, which knows no labelled traffic. What a correction is worth is not said here.
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
    """`position` int64[n] of items in order of turn, `turn` int64[n] of each of these: 0 is its key's first."""

    position: IntArray
    turn: IntArray


def round_robin_order(names: Sequence[str], keys: Sequence[str], seed: int) -> RoundRobinOrder:
    """Every key's first item, then every key's second, and so on; within a key and a turn chance decides, by name.

    ValueError unless names are distinct, one key to each.

    >>> found = round_robin_order(["a", "b", "c", "d"], ["flood", "flood", "flood", "one"], seed=0)
    >>> sorted(found.position[:2].tolist())[1], found.turn.tolist()
    (3, [0, 0, 1, 2])
    """
    if len(set(names)) != len(names) or len(names) != len(keys):
        raise ValueError(f"{len(names)} names, {len(set(names))} distinct, and {len(keys)} keys; expected as many of each.")
    lot = [generator(seed, "correction", name).random() for name in names]
    drawn = sorted(range(len(names)), key=lambda i: (lot[i], names[i]))
    taken: dict[str, int] = defaultdict(int)
    turn = np.zeros(len(names), np.int64)
    for i in drawn:
        turn[i] = taken[keys[i]]
        taken[keys[i]] += 1
    order = sorted(drawn, key=lambda i: turn[i])
    position = np.array(order, np.int64)
    return RoundRobinOrder(position, turn[position])


def max_corrections(rows: int, share: float) -> int:
    """How many corrections may join `rows` other rows so that of all together they are at most `share`, in [0, 1).

    >>> max_corrections(9, 0.1), max_corrections(8, 0.1), max_corrections(10, 0.5)
    (1, 0, 10)
    """
    if rows < 0 or not 0.0 <= share < 1.0:
        raise ValueError(f"rows is {rows} and share {share}; expected 0 or more rows and a share from 0 to below 1.")
    most = int(share * rows / (1.0 - share)) + 1
    while most and most / (rows + most) > share:
        most -= 1
    return most


def find_kept_duplicates(embeddings: npt.ArrayLike, tau: float) -> IntArray:
    """For each row of (n, d), in order of precedence, the earlier one that stays with a cosine above `tau`; -1 if it stays.

    A row gives way only to one that stays itself. ValueError on NaN and zero rows.

    >>> find_kept_duplicates([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], tau=0.7).tolist()
    [-1, 0, -1]
    """
    rows = unit_rows(embeddings) if np.size(embeddings) else np.zeros((0, 1), np.float32)
    gives_way = np.full(len(rows), -1, np.int64)
    stays: list[int] = []
    for i, row in enumerate(rows):
        near = np.flatnonzero(rows[stays] @ row > tau)
        if len(near):
            gives_way[i] = stays[near[0]]
        else:
            stays.append(i)
    return gives_way


def nearest_cosine(embeddings: npt.ArrayLike, others: EmbeddingReader, n: int) -> FloatArray:
    """Cosine float64[m] of each row of (m, d) to the nearest of `n` others, which are read in blocks; -1 where there is none.

    >>> axes = np.array([[0.0, 1.0], [0.6, 0.8]], np.float32)
    >>> nearest_cosine([[1.0, 0.0]], lambda i: axes[i], 2).round(6).tolist()
    [0.6]
    """
    rows = unit_rows(embeddings)
    found = np.full(len(rows), -1.0)
    for start in range(0, n, BLOCK_ROWS):
        block = unit_rows(others(np.arange(start, min(start + BLOCK_ROWS, n), dtype=np.int64)), "others")
        found = np.maximum(found, (rows @ block.T).max(axis=1))
    return found
