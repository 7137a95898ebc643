"""Resident adapters of vLLM and the requests that use them.

vLLM removes an adapter at once, also under running requests, and it knows an adapter by an integer. So each load gets a new
integer, and an unloaded adapter stays resident until its last request ends. A number counts as resident from its reservation
until vLLM has removed the adapter. Not thread-safe; calls nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from compass_ray.models.errors import ModelError


@dataclass
class ResidentAdapter:
    """An adapter in vLLM's memory. ``number`` never repeats in a process; ``folder`` has its files while it is resident."""

    number: int
    name: str
    folder: str
    leases: int = 0
    """Active requests that use it."""
    is_retired: bool = False
    """Whether it is unloaded or replaced, so that no new request gets it."""

    @property
    def is_removable(self) -> bool:
        """Whether nothing uses it any more."""
        return self.is_retired and not self.leases


class AdapterLeases:
    """The adapters by name, and those that only their requests keep."""

    def __init__(self, max_resident: int) -> None:
        """At most ``max_resident`` adapters are resident: vLLM would evict another one, and read it again during a step."""
        self.max_resident = max_resident
        self._numbers = itertools.count(1)
        self._by_name: dict[str, ResidentAdapter] = {}
        self._resident: set[int] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Loaded adapters, sorted."""
        return tuple(sorted(self._by_name))

    def reserve(self) -> int:
        """The number of the next adapter, which counts as resident until `forget`.

        Raises:
            ModelError: as many are resident as vLLM keeps.
        """
        if len(self._resident) >= self.max_resident:
            raise ModelError(
                f"{len(self._resident)} adapters are resident, and vLLM keeps at most {self.max_resident}; "
                f"raise max_cpu_loras in serve.vllm.arguments"
            )
        number = next(self._numbers)
        self._resident.add(number)
        return number

    def add(self, adapter: ResidentAdapter) -> ResidentAdapter | None:
        """Offer a loaded adapter under its name. Return the one that it replaces if that can be removed now."""
        replaced = self._by_name.get(adapter.name)
        self._by_name[adapter.name] = adapter
        return self._retire(replaced) if replaced else None

    def unload(self, name: str) -> ResidentAdapter | None:
        """Offer an adapter no longer. Return it if it can be removed now.

        Raises:
            ModelError: it is not loaded.
        """
        adapter = self._find(name)
        del self._by_name[name]
        return self._retire(adapter)

    def acquire(self, name: str | None) -> ResidentAdapter | None:
        """Count a request that starts to use an adapter; None is the base model.

        Raises:
            ModelError: it is not loaded.
        """
        if name is None:
            return None
        adapter = self._find(name)
        adapter.leases += 1
        return adapter

    def release(self, adapter: ResidentAdapter | None) -> ResidentAdapter | None:
        """Count a request that ended. Return the adapter if it can be removed now."""
        if adapter is None:
            return None
        adapter.leases -= 1
        return adapter if adapter.is_removable else None

    def forget(self, number: int) -> None:
        """Count an adapter no longer, because vLLM does not have it."""
        self._resident.discard(number)

    def _find(self, name: str) -> ResidentAdapter:
        if name not in self._by_name:
            raise ModelError(f"adapter {name!r} is not loaded; loaded: {', '.join(self.names) or 'none'}")
        return self._by_name[name]

    @staticmethod
    def _retire(adapter: ResidentAdapter) -> ResidentAdapter | None:
        adapter.is_retired = True
        return adapter if adapter.is_removable else None
