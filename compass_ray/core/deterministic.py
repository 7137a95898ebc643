"""COMPASS-D: draw the remaining row with the highest score each time; ties go to the earlier row.

The result equals that of scoring every row and every pair at each draw, but neighbours are counted only for a window of
the leading rows. A score with an incomplete neighbour count is never too low, so a leading row with an exact count is the
best row. Rows outside the window are not scored while the best row of the window exceeds their maximum score in the next
draws. COMPASS, section 3.2.3.
"""

import numpy as np

from compass_ray.core.array_checks import Float32Array, FloatArray, IntArray
from compass_ray.core.sampling_state import SamplingState

WINDOW = 128
# Draws that one scoring of all rows should cover, measured on clusters of 20,000 rows.
AHEAD = 32
# Maximum rounding error of a score between the ends of those draws.
ROUNDING = 1e-12
# Counting for all n rows costs as much as looking up n rows for windows; refresh after a quarter of that is wasted.
REFRESH_SHARE = 0.25


class DeterministicSampler:
    """Draws rows of a `SamplingState` by arg max."""

    def __init__(self, state: SamplingState) -> None:
        self.state = state
        self._known: IntArray = state.near.base.copy()
        self._window: IntArray = np.zeros(0, np.int64)
        self._vectors: Float32Array = np.zeros((0, 0), np.float32)
        self._neighbour: IntArray = np.zeros((0, 0), np.int64)
        self._outside, self._until = np.inf, 0
        self._wasted = 0

    def draw(self) -> None:
        """Draw the best row; without the penalty if every remaining score is 0."""
        index, score = self._best_of_window()
        if not score > max(self._outside + ROUNDING, 0.0) or self.state.n_drawn >= self._until:
            index, score = self._best_of_all()
        leader = int(self._window[index])
        self.state.record_draw(leader, score, int(self._known[leader]), self._vectors[index])
        self._known[self._window] += self._neighbour[index]
        self._wasted -= 1

    def _best_of_window(self) -> tuple[int, float]:
        """Index in the window and score of its best row; (-1, -inf) if no row is left."""
        if not self.state.undrawn[self._window].any():
            return -1, -np.inf
        plain = np.where(self.state.undrawn[self._window], self.state.mixture(self._window), -np.inf)
        score = plain - self.state.delta * self._known[self._window]
        index = int(np.argmax(score))
        return index, float(score[index])

    def _best_of_all(self) -> tuple[int, float]:
        """Index in the window and score of the best row of all, which this adds to the window."""
        plain = np.where(self.state.undrawn, self.state.mixture(), -np.inf)
        score = self._rank(plain)
        leader = int(np.argmax(score))
        while (index := self._window_index(leader)) < 0:
            self._look_up(score, leader)
            score = self._rank(plain)
            leader = int(np.argmax(score))
        return index, float(score[leader])

    def _window_index(self, row: int) -> int:
        """Index of a row in the window, -1 if it is not there."""
        index = int(np.searchsorted(self._window, row))
        return index if index < len(self._window) and self._window[index] == row else -1

    def _rank(self, plain: FloatArray) -> FloatArray:
        """Score to maximise, float64[n]: never below the true score, and equal to it inside the window."""
        score = plain - self.state.delta * self._known
        return score if score.max() > 0.0 else plain

    def _look_up(self, score: FloatArray, leader: int) -> None:
        """Make a window of the leader and the rows that can lead next; their counts become exact."""
        if self._wasted > REFRESH_SHARE * len(score):
            self._refresh()
        state, size = self.state, min(WINDOW, len(score))
        bound = state.max_mixture(AHEAD) - state.delta * self._known
        bound[~state.undrawn] = -np.inf
        top = np.argpartition(-bound, size - 1)[:size]
        self._window = np.union1d(top[state.undrawn[top]], [leader])
        bound[self._window] = -np.inf
        self._outside, self._until = float(bound.max()), state.n_drawn + AHEAD
        self._vectors = state.near.read(self._window)
        self._known[self._window] = state.near.count(self._window, self._vectors)
        self._neighbour = state.near.between(self._vectors)
        self._wasted += len(self._window)

    def _refresh(self) -> None:
        """Count neighbours of every remaining row, which also makes the next windows cheap."""
        self.state.refresh()
        self._known = self.state.near.base.copy()
        self._wasted = 0
