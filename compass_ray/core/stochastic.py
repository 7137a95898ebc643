"""COMPASS-S: draw exactly in proportion to the score, without a pass over the cluster for each draw.

Proposals are drawn in blocks from an upper bound of the scores in the block. The score mixes two fixed vectors with
monotone weights, so its maximum is at the first or last draw of the block; known neighbours only lower it. A proposal is
accepted with probability score / bound, which needs the neighbours of that one row only. Each draw therefore has the
distribution of the plain method (COMPASS, section 3.2.3), at the cost of one cumulative sum per block. After too many
rejected proposals, neighbours are counted for the complete cluster, which makes the bound tight again.
"""

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray
from compass_ray.core.sampling_state import SamplingState

MIN_BLOCK, MAX_BLOCK = 16, 256
# Counting for all n rows costs as much as looking up n proposals; refresh after a quarter of that is wasted.
REFRESH_SHARE = 0.25


class StochasticSampler:
    """Draws rows of a `SamplingState` by rejection sampling."""

    def __init__(self, state: SamplingState, rng: np.random.Generator) -> None:
        self.state, self._rng = state, rng
        self._rejected = 0

    def draw(self) -> None:
        """Draw one block of rows: at least one, at most `MAX_BLOCK`, never above the quota."""
        size = self._block_size()
        bound = self._bound(size)
        cumulative = np.cumsum(bound)
        if cumulative[-1] <= 0.0:
            self._draw_without_penalty()
            return
        proposals = self._pick(cumulative, size)
        accepted = self._accept(proposals, bound[proposals])
        self._rejected += size - accepted
        if accepted == 0:
            self._draw_exactly()
        elif self._rejected > REFRESH_SHARE * len(bound):
            self.state.refresh()
            self._rejected = 0

    def _draw_without_penalty(self) -> None:
        """Draw a block with scores of 0 without the penalty, or uniformly if delta is 0 already.

        Later blocks have the penalty again: as the weight of the boundary score grows, scores can become positive.
        """
        if self.state.delta == 0.0:
            self._draw_exactly()
            return
        with self.state.without_penalty():
            self.draw()

    def _block_size(self) -> int:
        """A fraction of the quota, so that the bound of a block stays close to each score in it."""
        return min(max(self.state.quota // 8, MIN_BLOCK), MAX_BLOCK)

    def _bound(self, size: int) -> FloatArray:
        """float64[n]: upper bound of the scores during the next `size` draws; 0 for drawn rows.

        A sum of zero means that every remaining score is 0 in each of these draws, because penalties only grow.
        """
        state = self.state
        bound = state.max_mixture(size)
        bound -= state.delta * state.near.base
        np.maximum(bound, 0.0, out=bound)
        bound *= state.undrawn
        return bound

    def _pick(self, cumulative: FloatArray, size: int) -> IntArray:
        """int64[size] positions in proportion to the steps of `cumulative` float64[n]; never one with a step of 0."""
        at = self._rng.random(size) * cumulative[-1]
        last = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
        return np.asarray(np.minimum(np.searchsorted(cumulative, at, side="right"), last), dtype=np.int64)

    def _accept(self, proposals: IntArray, bound: FloatArray) -> int:
        """Accept proposals one after another, each with probability score / bound; return the number of accepted ones."""
        state, before = self.state, self.state.n_drawn
        vectors = state.near.read(proposals)
        count, neighbour = state.near.count(proposals, vectors), state.near.between(vectors)
        thresholds = self._rng.random(len(proposals)) * bound
        proto, boundary = state.proto[proposals].tolist(), state.boundary[proposals].tolist()
        for j, (position, threshold) in enumerate(zip(proposals.tolist(), thresholds.tolist(), strict=True)):
            if not state.undrawn[position]:
                continue
            weight, near = state.boundary_weight, int(count[j])
            score = (1.0 - weight) * proto[j] + weight * boundary[j] - state.delta * near
            if threshold < score:
                state.record_draw(position, score, near, vectors[j])
                count += neighbour[j]
                if state.is_done:
                    break
        return state.n_drawn - before

    def _draw_exactly(self) -> None:
        """Draw one row from the scores of all remaining rows; without the penalty if all of them are 0."""
        state = self.state
        state.refresh()
        self._rejected = 0
        plain = np.where(state.undrawn, state.mixture(), 0.0)
        score = np.maximum(plain - state.delta * state.near.base, 0.0)
        if not score.any():
            score = plain
        if not score.any():
            score = state.undrawn.astype(np.float64)
        position = int(self._pick(np.cumsum(score), 1)[0])
        vector = state.near.read(np.array([position]))[0]
        state.record_draw(position, float(score[position]), int(state.near.base[position]), vector)
