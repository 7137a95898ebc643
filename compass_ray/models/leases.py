"""Which adapter slots replies under way wear, so that none is emptied under them. Loads nothing, computes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from compass_ray.models.routing import Wear


class Leases:
    """Slots by how many rows wear them."""

    def __init__(self, release: Callable[[int], None]) -> None:
        """``release`` empties a slot that was retired, once nobody wears it."""
        self._release = release
        self._worn: Counter[int] = Counter()
        self._retired: set[int] = set()

    def take(self, wear: Wear) -> None:
        """A row begins to wear these slots."""
        self._worn.update(slot for slot, _ in wear)

    def give_back(self, wear: Wear) -> None:
        """A row is done with them."""
        self._worn.subtract(slot for slot, _ in wear)
        for slot, _ in wear:
            self._empty(slot)

    def retire(self, slot: int) -> None:
        """No new row will wear the slot."""
        self._retired.add(slot)
        self._empty(slot)

    def _empty(self, slot: int) -> None:
        if slot in self._retired and not self._worn[slot]:
            self._retired.discard(slot)
            del self._worn[slot]
            self._release(slot)
