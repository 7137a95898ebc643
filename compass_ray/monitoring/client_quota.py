"""A bound on stored items by number and size, fair by client: the client that holds most loses an item first.

So one client cannot displace the items of others, however many it sends. It holds only names and sizes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

_Item = TypeVar("_Item", bound=Hashable)
_SPARE = 64
"""Outdated entries that a heap may hold beyond one for each client."""


class ClientQuota(Generic[_Item]):
    """The items that are within the bound. Not safe for several threads: one owner calls it.

    A change takes time logarithmic in the number of clients.
    """

    def __init__(self, max_items: int, max_bytes: int, *, evict_newest: bool = False) -> None:
        """Hold at most ``max_items`` and ``max_bytes``.

        An evicted client loses its oldest item. With ``evict_newest`` it loses its newest, and of clients that hold equally
        much, the last one that came is evicted: so many new clients displace no earlier one.
        """
        self.max_items, self.max_bytes, self.evict_newest = max_items, max_bytes, evict_newest
        self.bytes = 0
        self._clients: dict[str, OrderedDict[_Item, int]] = {}
        """Size of each item in bytes, by client, oldest first."""
        self._owners: dict[_Item, str] = {}
        self._by_items, self._by_bytes = ClientRanking(evict_newest), ClientRanking(evict_newest)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._owners)

    def __contains__(self, item: _Item) -> bool:
        """Whether the item is held."""
        return item in self._owners

    def add(self, item: _Item, client: str, size: int) -> list[_Item]:
        """Hold an item as the newest of its client, in place of an equal one; returns the evicted items.

        The item itself may be among them.
        """
        self.remove(item)
        self._owners[item] = client
        self._clients.setdefault(client, OrderedDict())[item] = size
        self._change(client, 1, size)
        evicted = []
        while len(self) > self.max_items or self.bytes > self.max_bytes:
            evicted.append(self._next_victim())
            self.remove(evicted[-1])
        return evicted

    def remove(self, item: _Item) -> None:
        """Stop holding an item, if it is held."""
        client = self._owners.pop(item, None)
        if client is None:
            return
        self._change(client, -1, -self._clients[client].pop(item))
        if not self._clients[client]:
            del self._clients[client]

    def _change(self, client: str, items: int, size: int) -> None:
        self.bytes += size
        self._by_items.add(client, items)
        self._by_bytes.add(client, size)

    def _next_victim(self) -> _Item:
        ranking = self._by_items if len(self) > self.max_items else self._by_bytes
        items = self._clients[ranking.largest()]
        return next(reversed(items)) if self.evict_newest else next(iter(items))


class ClientRanking:
    """Clients by amount, largest first. Of equal ones the last that came is first, or the first that came.

    A heap with outdated entries, which are skipped at the top and removed if there are many.
    """

    def __init__(self, newest_first: bool) -> None:
        """Rank no client yet."""
        self._sign = -1 if newest_first else 1
        self._numbers = count()
        self._entries: dict[str, tuple[int, int, str]] = {}
        """The valid entry of each client: its negative amount, its order among equal ones, and its name."""
        self._heap: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        """Number of entries in memory, outdated ones included."""
        return len(self._heap)

    def add(self, client: str, amount: int) -> None:
        """Change the amount of a client; a client with nothing is no longer ranked."""
        before, order, _ = self._entries.get(client) or (0, self._sign * next(self._numbers), client)
        if before == amount:  # amounts are stored with the opposite sign
            self._entries.pop(client, None)
            return
        self._entries[client] = entry = (before - amount, order, client)
        heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + _SPARE:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def largest(self) -> str:
        """The first client."""
        while self._entries.get(self._heap[0][2]) != self._heap[0]:
            heappop(self._heap)
        return self._heap[0][2]
