"""Which adapter slots replies under way wear, so that none is emptied under them. Loads nothing, computes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from compass_ray.models.routing import TokenAdapters


class AdapterRefCounts:
    """Slots by how many rows wear them."""

    def __init__(self, release: Callable[[int], None]) -> None:
        """``release`` empties a slot that was retired, once nobody wears it."""
        self._free_slot = release
        self._counts: Counter[int] = Counter()
        self._retired: set[int] = set()

    def acquire(self, wear: TokenAdapters) -> None:
        """A row begins to wear these slots."""
        self._counts.update(slot for slot, _ in wear)

    def release(self, wear: TokenAdapters) -> None:
        """A row is done with them."""
        self._counts.subtract(slot for slot, _ in wear)
        for slot, _ in wear:
            self._free_if_unused(slot)

    def retire(self, slot: int) -> None:
        """No new row will wear the slot."""
        self._retired.add(slot)
        self._free_if_unused(slot)

    def _free_if_unused(self, slot: int) -> None:
        if slot in self._retired and not self._counts[slot]:
            self._retired.discard(slot)
            del self._counts[slot]
            self._free_slot(slot)
