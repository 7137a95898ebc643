"""COMPASS-D: the best remaining row each time, ties to the earlier one.

Key property: equal to looking at every row each time, but neighbours are counted only for the row that leads.
A score with the neighbours known so far is never too low, so a leader whose count proves up to date is the
best row. COMPASS, section 3.2.3; method, section 5.
"""

import numpy as np

from compass_ray.core.arrays import IntArray
from compass_ray.core.drawing import Drawing

# Counting for all n rows costs the products of n look-ups, but a look-up is a pass over the scores too.
REFRESH_SHARE = 0.125


class DeterministicSampler:
    """Draws rows of a `Drawing` by arg max."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self._known: IntArray = drawing.near.base.copy()
        self._looked_up = 0

    def draw(self) -> None:
        """Draw the one best row."""
        plain = np.where(self.drawing.undrawn, self.drawing.mixture(), -np.inf)
        score = plain - self.drawing.delta * self._known
        leader = int(np.argmax(score))
        while score[leader] > 0.0:
            if self._confirm(leader):
                self._take(leader, float(score[leader]))
                return
            if self._looked_up > REFRESH_SHARE * len(score):
                self._refresh()
                score = plain - self.drawing.delta * self._known
            score[leader] = plain[leader] - self.drawing.delta * self._known[leader]
            leader = int(np.argmax(score))
        best = int(np.argmax(plain))
        self._confirm(best)
        self._take(best, float(plain[best]))

    def _confirm(self, position: int) -> bool:
        """Count the drawn neighbours of one row; whether that was known already."""
        at = np.array([position])
        count = int(self.drawing.near.count(at, self.drawing.near.read(at))[0])
        same = count == self._known[position]
        self._known[position] = count
        self._looked_up += not same
        return bool(same)

    def _take(self, position: int, score: float) -> None:
        vector = self.drawing.near.read(np.array([position]))[0]
        self.drawing.take(position, score, int(self._known[position]), vector)

    def _refresh(self) -> None:
        self.drawing.refresh()
        self._known = self.drawing.near.base.copy()
        self._looked_up = 0
