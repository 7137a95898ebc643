"""COMPASS-D: the best remaining row each time, ties to the earlier one.

Key property: equal to looking at every row and every pair each time, but neighbours are counted only for a window of
the rows that lead. A score with the neighbours known so far is never too low, so a leader whose count is exact is the
best row. COMPASS, section 3.2.3.
"""

import numpy as np

from compass_ray.core.arrays import Float32Array, FloatArray, IntArray
from compass_ray.core.drawing import Drawing

WINDOW = 64
# Counting for all n rows costs what looking up n rows of windows costs: wait until a quarter of that was wasted.
REFRESH_SHARE = 0.25


class DeterministicSampler:
    """Draws rows of a `Drawing` by arg max."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self._known: IntArray = drawing.near.base.copy()
        self._window: IntArray = np.zeros(0, np.int64)
        self._place: dict[int, int] = {}
        self._vectors: Float32Array = np.zeros((0, 0), np.float32)
        self._neighbour: IntArray = np.zeros((0, 0), np.int64)
        self._wasted = 0

    def draw(self) -> None:
        """Draw the one best row; without the penalty where every remaining score is 0."""
        plain = np.where(self.drawing.undrawn, self.drawing.mixture(), -np.inf)
        score = self._rank(plain)
        leader = int(np.argmax(score))
        while leader not in self._place:
            self._look_up(score, leader)
            score = self._rank(plain)
            leader = int(np.argmax(score))
        place = self._place[leader]
        self.drawing.take(leader, float(score[leader]), int(self._known[leader]), self._vectors[place])
        self._known[self._window] += self._neighbour[place]
        self._wasted -= 1

    def _rank(self, plain: FloatArray) -> FloatArray:
        """What to maximise, float64[n]: never below the true score, and equal to it inside the window."""
        score = plain - self.drawing.delta * self._known
        return score if score.max() > 0.0 else plain

    def _look_up(self, score: FloatArray, leader: int) -> None:
        """Make the rows that lead by `score` the window: their counts are exact from now on."""
        if self._wasted > REFRESH_SHARE * len(score):
            self._refresh()
        size = min(WINDOW, len(score))
        top = np.argpartition(-score, size - 1)[:size]
        self._window = np.union1d(top[self.drawing.undrawn[top]], [leader])
        self._place = {int(position): place for place, position in enumerate(self._window)}
        self._vectors = self.drawing.near.read(self._window)
        self._known[self._window] = self.drawing.near.count(self._window, self._vectors)
        self._neighbour = self.drawing.near.between(self._vectors)
        self._wasted += len(self._window)

    def _refresh(self) -> None:
        """Count for every remaining row, which also makes the next windows cheap."""
        self.drawing.refresh()
        self._known = self.drawing.near.base.copy()
        self._wasted = 0
