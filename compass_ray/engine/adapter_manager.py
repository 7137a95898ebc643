"""Adapters resident on one base model, by name and by slot.

Key properties: an adapter is checked whole before anything changes, so a directory that is damaged or made for another
base is refused and whatever was served under that name goes on; a new version takes a slot of its own, and tokens that
wear the old one keep it until it is released. Generates nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from compass_ray.adapters.dora import replace_module
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.engine.adapter_mapping import BASE_SLOT, AdapterMapping, TokenAdapters
from compass_ray.engine.fold_adapter import PreparedAdapter, fold_adapter
from compass_ray.engine.multi_adapter_linear import MultiAdapterLinear
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError


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


STACKED_BYTES = 32 << 20
"""Bound on the copies of adapters that stand side by side for small models, for a whole model, whatever is resident."""


class AdapterManager:
    """The adapters on a base model; its layers are wrapped as adapters need them."""

    def __init__(self, base: BaseModel) -> None:
        """Start without adapters."""
        self.base = base
        self.adapter_mapping = AdapterMapping()
        self._layers: dict[str, MultiAdapterLinear] = {}
        self._slot_by_name: dict[str, int] = {}
        self._bytes_by_slot: dict[int, int] = {}

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the resident adapters, sorted."""
        return tuple(sorted(self._slot_by_name))

    @property
    def nbytes(self) -> int:
        """Bytes of all resident adapters, those included that wait for their release."""
        return sum(self._bytes_by_slot.values())

    def load(self, name: str, folder: Path) -> int:
        """Make the adapter of a PEFT directory resident, in a slot of its own, and give the slot.

        Raises:
            ModelError: it is damaged, was made for another base, or needs what is not served; nothing has changed then.
        """
        return self.install(name, self.prepare(folder))

    def prepare(self, folder: Path) -> PreparedAdapter:
        """Read and fold an adapter. Changes nothing, so another thread may do it while the model runs.

        Raises:
            ModelError: as `load`.
        """
        try:
            return fold_adapter(self.base.model, read_adapter(folder))
        except ModelError as error:
            raise ModelError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from None

    def install(self, name: str, prepared: PreparedAdapter) -> int:
        """Make a prepared adapter the newest of its name, in a slot of its own, and give the slot. Takes no time.

        An older one of the name stays in its slot until `release`.
        """
        slot = next(slot for slot in range(BASE_SLOT + 1, len(self._bytes_by_slot) + 2) if slot not in self._bytes_by_slot)
        for path, weights in prepared.layers.items():
            self._wrap_layer(path).set_adapter(slot, weights)
        self._bytes_by_slot[slot] = prepared.nbytes
        self._slot_by_name[name] = slot
        return slot

    def unload(self, name: str) -> int:
        """Forget the name of an adapter and give its slot, which stays filled until `release`.

        Raises:
            ModelError: there is none of this name.
        """
        slot = self.get_slot(name)
        del self._slot_by_name[name]
        return slot

    def free_slot(self, slot: int) -> None:
        """Empty a slot that no token wears any more.

        Raises:
            ModelError: it is empty already, or still what a name stands for.
        """
        if slot not in self._bytes_by_slot or slot in self._slot_by_name.values():
            state = "served under a name; unload that first" if slot in self._bytes_by_slot else "empty already"
            raise ModelError(f"slot {slot} is {state}")
        del self._bytes_by_slot[slot]
        for layer in self._layers.values():
            layer.set_adapter(slot, None)
        self.adapter_mapping.clear()

    def get_slot(self, name: str | None) -> int:
        """The slot of an adapter, the newest of its name; None is the base model.

        Raises:
            ModelError: there is none of this name.
        """
        if name is None:
            return BASE_SLOT
        if name not in self._slot_by_name:
            raise ModelError(f"adapter {name!r} is not loaded; loaded: {', '.join(self.adapter_names) or 'none'}")
        return self._slot_by_name[name]

    def set_adapter_mapping(self, wears: Sequence[TokenAdapters]) -> None:
        """Let token i of the next forward passes, in flattened order, wear ``wears[i]``: (slot, weight) pairs, () the base.

        Costs one comparison where the routing is the last one. None at all is the base for any number of tokens. Tokens of
        one adapter cost least where they stand together.

        Raises:
            ModelError: a slot that is empty.
        """
        wanted = tuple(wears)
        if wanted == self.adapter_mapping.by_token:
            return
        slots = {slot for wear in set(wanted) for slot, _ in wear} - {BASE_SLOT}
        if not slots <= self._bytes_by_slot.keys():
            raise ModelError(
                f"slots {sorted(slots - self._bytes_by_slot.keys())} are used but empty; filled: {sorted(self._bytes_by_slot)}"
            )
        widest = max((self._bytes_by_slot[slot] for slot in slots), default=0)
        self.adapter_mapping.update(wanted, self.base.device, stacked=widest * len(slots) <= STACKED_BYTES)

    def close(self) -> None:
        """Put the base's own layers back."""
        for path, layer in self._layers.items():
            replace_module(self.base.model, path, layer.base)
        self._layers.clear()
        self._slot_by_name.clear()
        self._bytes_by_slot.clear()
        self.adapter_mapping.clear()

    def _wrap_layer(self, path: str) -> MultiAdapterLinear:
        if path not in self._layers:
            self._layers[path] = MultiAdapterLinear(self.base.model.get_submodule(path), self.adapter_mapping)
            replace_module(self.base.model, path, self._layers[path])
        return self._layers[path]
