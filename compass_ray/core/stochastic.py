"""COMPASS-S: draws in proportion to the score, exactly, without a pass over the cluster for each.

Proposals come in blocks from a bound on every score of the block: the score is a mixture of two fixed vectors
whose weights move one way, so it is highest at one end of the block, and neighbours known so far only lower it. A
proposal is accepted with probability score / bound, which needs the neighbours of that one row. So the law of
each draw is that of the plain method (COMPASS, section 3.2.3), while the cost is one cumulative sum a block.
Where too many proposals are turned down, neighbours are counted for the whole cluster and the bound is tight
again.
"""

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray
from compass_ray.core.sampling_state import SamplingState

MIN_BLOCK, MAX_BLOCK = 16, 256
# Counting for all n rows costs what looking up n proposals costs: wait until a quarter of that was wasted.
REFRESH_SHARE = 0.25


class StochasticSampler:
    """Draws rows of a `Drawing` by accept-reject."""

    def __init__(self, drawing: SamplingState, rng: np.random.Generator) -> None:
        self.state, self._rng = drawing, rng
        self._turned_down = 0

    def draw(self) -> None:
        """Draw one block of rows: at least one, at most `MAX_BLOCK`, never above the quota."""
        size = self._block_size()
        bound = self._bound(size)
        cumulative = np.cumsum(bound)
        if cumulative[-1] <= 0.0:
            self._all_zero()
            return
        proposals = self._pick(cumulative, size)
        accepted = self._accept(proposals, bound[proposals])
        self._turned_down += size - accepted
        if accepted == 0:
            self._draw_exactly()
        elif self._turned_down > REFRESH_SHARE * len(bound):
            self.state.refresh()
            self._turned_down = 0

    def _all_zero(self) -> None:
        """Every score of this block is 0: draw it without the penalty, or by chance alone if that is 0 already.

        Later blocks have the penalty again: as the boundary score gains weight, a score can rise above it.
        """
        if self.state.delta == 0.0:
            self._draw_exactly()
            return
        with self.state.without_penalty():
            self.draw()

    def _block_size(self) -> int:
        """Small against the quota, so that the bound over a block stays close to each score in it."""
        return min(max(self.state.quota // 8, MIN_BLOCK), MAX_BLOCK)

    def _bound(self, size: int) -> FloatArray:
        """float64[n]: no score can be above this during the next `size` draws; 0 where drawn.

        A sum of zero means that every remaining score is 0 in each of these draws, because penalties only grow.
        """
        d = self.state
        bound = d.max_mixture(size)
        bound -= d.delta * d.near.base
        np.maximum(bound, 0.0, out=bound)
        bound *= d.undrawn
        return bound

    def _pick(self, cumulative: FloatArray, size: int) -> IntArray:
        """int64[size] positions in proportion to the steps of `cumulative` float64[n], none where it is 0."""
        at = self._rng.random(size) * cumulative[-1]
        last = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
        return np.asarray(np.minimum(np.searchsorted(cumulative, at, side="right"), last), dtype=np.int64)

    def _accept(self, proposals: IntArray, bound: FloatArray) -> int:
        """Take proposals one after another, each with probability score / bound; how many were taken."""
        d, before = self.state, self.state.n_drawn
        vectors = d.near.read(proposals)
        count, neighbour = d.near.count(proposals, vectors), d.near.between(vectors)
        ceiling = self._rng.random(len(proposals)) * bound
        proto, boundary = d.proto[proposals].tolist(), d.boundary[proposals].tolist()
        for j, (position, needed) in enumerate(zip(proposals.tolist(), ceiling.tolist(), strict=True)):
            if not d.undrawn[position]:
                continue
            late, near = d.boundary_weight, int(count[j])
            score = (1.0 - late) * proto[j] + late * boundary[j] - d.delta * near
            if needed < score:
                d.record_draw(position, score, near, vectors[j])
                count += neighbour[j]
                if d.is_done:
                    break
        return d.n_drawn - before

    def _draw_exactly(self) -> None:
        """One draw from the scores of all remaining rows; without the penalty where all of them are 0."""
        d = self.state
        d.refresh()
        self._turned_down = 0
        plain = np.where(d.undrawn, d.mixture(), 0.0)
        score = np.maximum(plain - d.delta * d.near.base, 0.0)
        if not score.any():
            score = plain
        if not score.any():
            score = d.undrawn.astype(np.float64)
        position = int(self._pick(np.cumsum(score), 1)[0])
        vector = d.near.read(np.array([position]))[0]
        d.record_draw(position, float(score[position]), int(d.near.base[position]), vector)
