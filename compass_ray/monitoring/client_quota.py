"""A bound on stored items by number and size, fair by client: the client that holds most loses an item first.

So one client cannot displace the items of others, however many it sends. It holds only names and sizes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_Item = TypeVar("_Item", bound=Hashable)


class ClientQuota(Generic[_Item]):
    """The items that are within the bound. Not safe for several threads: one owner calls it."""

    def __init__(self, max_items: int, max_bytes: int, *, evict_newest: bool = False) -> None:
        """Hold at most ``max_items`` and ``max_bytes``. An evicted client loses its oldest item, or its newest."""
        self.max_items, self.max_bytes, self.evict_newest = max_items, max_bytes, evict_newest
        self.bytes = 0
        self._clients: dict[str, OrderedDict[_Item, int]] = {}
        """Size of each item in bytes, by client, oldest first."""
        self._client_bytes: dict[str, int] = {}
        self._owners: dict[_Item, str] = {}

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
        self._client_bytes[client] = self._client_bytes.get(client, 0) + size
        self.bytes += size
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
        size = self._clients[client].pop(item)
        self.bytes -= size
        self._client_bytes[client] -= size
        if not self._clients[client]:
            del self._clients[client], self._client_bytes[client]

    def _next_victim(self) -> _Item:
        if len(self) > self.max_items:
            client = max(self._clients, key=lambda name: len(self._clients[name]))
        else:
            client = max(self._client_bytes, key=self._client_bytes.__getitem__)
        items = self._clients[client]
        return next(reversed(items)) if self.evict_newest else next(iter(items))
