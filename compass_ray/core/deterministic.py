"""COMPASS-D: the best remaining row each time, ties to the earlier one.

Key property: equal to looking at every row and every pair each time, but neighbours are counted only for a window of
the rows that lead. A score with the neighbours known so far is never too low, so a leader whose count is exact is the
best row. While the best of the window is above all that the others can get in the next draws, they are not looked at.
COMPASS, section 3.2.3.
"""

import numpy as np

from compass_ray.core.array_checks import Float32Array, FloatArray, IntArray
from compass_ray.core.sampling_state import SamplingState

WINDOW = 128
# Draws that one look at all rows should serve, measured on clusters of 20,000 rows.
AHEAD = 32
# What rounding may add to a score on the way from one end of those draws to the other.
ROUNDING = 1e-12
# Counting for all n rows costs what looking up n rows of windows costs: wait until a quarter of that was wasted.
REFRESH_SHARE = 0.25


class DeterministicSampler:
    """Draws rows of a `Drawing` by arg max."""

    def __init__(self, drawing: SamplingState) -> None:
        self.state = drawing
        self._known: IntArray = drawing.near.base.copy()
        self._window: IntArray = np.zeros(0, np.int64)
        self._vectors: Float32Array = np.zeros((0, 0), np.float32)
        self._neighbour: IntArray = np.zeros((0, 0), np.int64)
        self._outside, self._until = np.inf, 0
        self._wasted = 0

    def draw(self) -> None:
        """Draw the one best row; without the penalty where every remaining score is 0."""
        place, score = self._lead_of_window()
        if not score > max(self._outside + ROUNDING, 0.0) or self.state.n_drawn >= self._until:
            place, score = self._lead_of_all()
        leader = int(self._window[place])
        self.state.record_draw(leader, score, int(self._known[leader]), self._vectors[place])
        self._known[self._window] += self._neighbour[place]
        self._wasted -= 1

    def _lead_of_window(self) -> tuple[int, float]:
        """Place and score of the window's best row, (-1, -inf) if it has none left."""
        if not self.state.undrawn[self._window].any():
            return -1, -np.inf
        plain = np.where(self.state.undrawn[self._window], self.state.mixture(self._window), -np.inf)
        score = plain - self.state.delta * self._known[self._window]
        place = int(np.argmax(score))
        return place, float(score[place])

    def _lead_of_all(self) -> tuple[int, float]:
        """Place and score of the best row of all, which is in the window from now on."""
        plain = np.where(self.state.undrawn, self.state.mixture(), -np.inf)
        score = self._rank(plain)
        leader = int(np.argmax(score))
        while (place := self._window_index(leader)) < 0:
            self._look_up(score, leader)
            score = self._rank(plain)
            leader = int(np.argmax(score))
        return place, float(score[leader])

    def _window_index(self, row: int) -> int:
        """Where a row is in the window, -1 if it is not."""
        place = int(np.searchsorted(self._window, row))
        return place if place < len(self._window) and self._window[place] == row else -1

    def _rank(self, plain: FloatArray) -> FloatArray:
        """What to maximise, float64[n]: never below the true score, and equal to it inside the window."""
        score = plain - self.state.delta * self._known
        return score if score.max() > 0.0 else plain

    def _look_up(self, score: FloatArray, leader: int) -> None:
        """Make the leader and the rows that can lead next the window: their counts are exact from now on."""
        if self._wasted > REFRESH_SHARE * len(score):
            self._refresh()
        drawing, size = self.state, min(WINDOW, len(score))
        reach = drawing.max_mixture(AHEAD) - drawing.delta * self._known
        reach[~drawing.undrawn] = -np.inf
        top = np.argpartition(-reach, size - 1)[:size]
        self._window = np.union1d(top[drawing.undrawn[top]], [leader])
        reach[self._window] = -np.inf
        self._outside, self._until = float(reach.max()), drawing.n_drawn + AHEAD
        self._vectors = drawing.near.read(self._window)
        self._known[self._window] = drawing.near.count(self._window, self._vectors)
        self._neighbour = drawing.near.between(self._vectors)
        self._wasted += len(self._window)

    def _refresh(self) -> None:
        """Count for every remaining row, which also makes the next windows cheap."""
        self.state.refresh()
        self._known = self.state.near.base.copy()
        self._wasted = 0
