"""Round robin over guide prompts: each prompt in turn takes the most similar candidate that no prompt has taken.

The prompts least covered by the language's own rows come first; coverage is the similarity to the nearest own row. When every
prompt had a turn, the next round has the same order. Clusters, quotas and random numbers have no influence. After "A Critical
Look at Targeted Instruction Selection" (arXiv 2602.14696); an additional baseline to those of COMPASS, section 4.3.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import IntArray, unit_rows
from compass_ray.core.baselines.nearest import BLOCK_ROWS
from compass_ray.core.baselines.pickers import PickedRows
from compass_ray.core.near_duplicates import EmbeddingReader
from compass_ray.core.round_robin import nearest_cosine

_DECIMALS = 6
"""Cosines are rounded to the precision of float32, so that equal rows tie; the earlier position comes first."""


@dataclass(frozen=True)
class GuideTurnsPicker:
    """Takes `n` candidates in turns of the guide prompts, (g, d); `own` reads the `n_own` own rows of the language.

    The score of a row is its cosine to the prompt that took it. ValueError on an empty guide set, NaN and zero rows.

    >>> rows = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    >>> picker = GuideTurnsPicker(lambda i: rows[i], 3, rows[[0, 2]], lambda i: rows[i], 1)
    >>> picker(2, np.random.default_rng(0)).position.tolist()
    [2, 0]
    """

    rows: EmbeddingReader
    n: int
    guide: npt.ArrayLike
    own: EmbeddingReader
    n_own: int

    def __call__(self, count: int, rng: np.random.Generator) -> PickedRows:
        """Take `count` rows, or all candidates if there are fewer; nothing is drawn."""
        count = min(count, self.n)
        order = turn_order(self.guide, self.own, self.n_own)
        ranked = rank_candidates(self.rows, self.n, self.guide, count)
        return take_in_turns(ranked, order, count)


@dataclass(frozen=True)
class RankedCandidates:
    """The most similar candidates of each of g prompts, best first: `position` int64 (g, k), `cosine` float64 (g, k)."""

    position: IntArray
    cosine: npt.NDArray[np.float64]


def turn_order(guide: npt.ArrayLike, own: EmbeddingReader, n_own: int) -> IntArray:
    """Guide prompts int64[g], the one farthest from its nearest own row first; in their own order without own rows.

    >>> axes = np.eye(2, dtype=np.float32)
    >>> turn_order(axes, lambda i: axes[i], 1).tolist()
    [1, 0]
    """
    return np.argsort(np.round(nearest_cosine(guide, own, n_own), _DECIMALS), kind="stable").astype(np.int64)


def rank_candidates(rows: EmbeddingReader, n: int, guide: npt.ArrayLike, k: int) -> RankedCandidates:
    """The `k` most similar of `n` candidates for each guide prompt, read in blocks of rows."""
    prompts = unit_rows(guide, "guide")
    if not len(prompts):
        raise ValueError("the guide set is empty; give the embedding of one guide prompt or more, shape (g, d).")
    best = np.zeros((len(prompts), 0), np.int64)
    for start in range(0, n, BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, n), dtype=np.int64)
        keys = _sort_keys(prompts @ unit_rows(rows(block)).T, block, n)
        best = _largest(np.concatenate([best, keys], axis=1), k)
    best = -np.sort(-best, axis=1)
    return RankedCandidates(n - 1 - best % n, best // n / 10.0**_DECIMALS) if n else RankedCandidates(best, best.astype(float))


def _sort_keys(cosine: npt.NDArray[np.float32], position: IntArray, n: int) -> IntArray:
    """Distinct int64 keys that grow with the rounded cosine and, among equal ones, fall with the position."""
    steps = np.rint(np.clip(cosine.astype(np.float64), -1.0, 1.0) * 10**_DECIMALS).astype(np.int64)
    return np.asarray(steps * n + (n - 1 - position))


def _largest(keys: IntArray, k: int) -> IntArray:
    """The `k` largest keys of each row, in any order."""
    drop = keys.shape[1] - k
    return keys if drop <= 0 else np.partition(keys, drop - 1, axis=1)[:, drop:]


def take_in_turns(ranked: RankedCandidates, order: IntArray, count: int) -> PickedRows:
    """Round after round, each prompt of `order` takes its best candidate that is left, up to `count` rows.

    Each prompt needs its `count` best candidates, or all of them.
    """
    taken: dict[int, float] = {}
    tried = np.zeros(len(order), np.int64)
    while len(taken) < count:
        for prompt in order[: count - len(taken)].tolist():
            while int(ranked.position[prompt, tried[prompt]]) in taken:
                tried[prompt] += 1
            at = (prompt, tried[prompt])
            taken[int(ranked.position[at])] = float(ranked.cosine[at])
    return PickedRows(np.array(list(taken), np.int64), np.array(list(taken.values()), np.float64))
