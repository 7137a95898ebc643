"""Resident adapters of one base model, by name and by slot.

An adapter is checked completely before anything changes. A damaged directory, or one made for another base model, is
rejected and the loaded adapter stays. A new version gets its own slot; tokens mapped to the old slot keep it until it is
freed. Generates nothing.
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
    """Number of requests that use each slot."""

    def __init__(self, free_slot: Callable[[int], None]) -> None:
        """``free_slot`` frees a retired slot once no request uses it."""
        self._free_slot = free_slot
        self._counts: Counter[int] = Counter()
        self._retired: set[int] = set()

    def acquire(self, token_adapters: TokenAdapters) -> None:
        """Count a request that starts to use these slots."""
        self._counts.update(slot for slot, _ in token_adapters)

    def release(self, token_adapters: TokenAdapters) -> None:
        """Count a request that no longer uses them."""
        self._counts.subtract(slot for slot, _ in token_adapters)
        for slot, _ in token_adapters:
            self._free_if_unused(slot)

    def retire(self, slot: int) -> None:
        """Free the slot once no request uses it; no new request will."""
        self._retired.add(slot)
        self._free_if_unused(slot)

    def _free_if_unused(self, slot: int) -> None:
        if slot in self._retired and not self._counts[slot]:
            self._retired.discard(slot)
            del self._counts[slot]
            self._free_slot(slot)


STACKED_BYTES = 32 << 20
"""Limit of the stacked adapter copies for small models, for all layers together."""


class AdapterManager:
    """The adapters of a base model. It wraps the layers that adapters change."""

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
        """Bytes of all resident adapters, including retired ones that are not freed yet."""
        return sum(self._bytes_by_slot.values())

    def load(self, name: str, folder: Path) -> int:
        """Load the adapter of a PEFT directory into its own slot and return the slot.

        Raises:
            ModelError: it is damaged, was made for another base model, or uses an unsupported feature; then nothing changes.
        """
        return self.install(name, self.prepare(folder))

    def prepare(self, folder: Path) -> PreparedAdapter:
        """Read and fold an adapter. Changes nothing, so it may run in another thread while the model runs.

        Raises:
            ModelError: as `load`.
        """
        try:
            return fold_adapter(self.base.model, read_adapter(folder))
        except ModelError as error:
            raise ModelError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from None

    def install(self, name: str, prepared: PreparedAdapter) -> int:
        """Install a prepared adapter under ``name``, in its own slot, and return the slot. Takes no time.

        An older adapter of this name stays in its slot until `free_slot`.
        """
        slot = next(slot for slot in range(BASE_SLOT + 1, len(self._bytes_by_slot) + 2) if slot not in self._bytes_by_slot)
        for path, weights in prepared.layers.items():
            self._wrap_layer(path).set_adapter(slot, weights)
        self._bytes_by_slot[slot] = prepared.nbytes
        self._slot_by_name[name] = slot
        return slot

    def unload(self, name: str) -> int:
        """Remove the name of an adapter and return its slot, which stays filled until `free_slot`.

        Raises:
            ModelError: no adapter has this name.
        """
        slot = self.get_slot(name)
        del self._slot_by_name[name]
        return slot

    def free_slot(self, slot: int) -> None:
        """Empty a slot that no token uses any more.

        Raises:
            ModelError: it is empty already, or a name still points to it.
        """
        if slot not in self._bytes_by_slot or slot in self._slot_by_name.values():
            state = "served under a name; unload that name first" if slot in self._bytes_by_slot else "empty already"
            raise ModelError(f"slot {slot} is {state}")
        del self._bytes_by_slot[slot]
        for layer in self._layers.values():
            layer.set_adapter(slot, None)
        self.adapter_mapping.clear()

    def get_slot(self, name: str | None) -> int:
        """The slot of the newest adapter of this name; None is the base model.

        Raises:
            ModelError: no adapter has this name.
        """
        if name is None:
            return BASE_SLOT
        if name not in self._slot_by_name:
            raise ModelError(f"adapter {name!r} is not loaded; loaded: {', '.join(self.adapter_names) or 'none'}")
        return self._slot_by_name[name]

    def set_adapter_mapping(self, by_token: Sequence[TokenAdapters]) -> None:
        """Map token i of the next forward passes, in flattened order, to ``by_token[i]``: (slot, weight) pairs, () for the base.

        An empty sequence maps any number of tokens to the base model. The same mapping again costs one comparison.
        Contiguous tokens of one adapter are cheapest.

        Raises:
            ModelError: a slot is empty.
        """
        by_token = tuple(by_token)
        if by_token == self.adapter_mapping.by_token:
            return
        slots = {slot for adapters in set(by_token) for slot, _ in adapters} - {BASE_SLOT}
        if empty := sorted(slots - self._bytes_by_slot.keys()):
            raise ModelError(f"slots {empty} are mapped to tokens but empty; filled slots: {sorted(self._bytes_by_slot)}")
        widest = max((self._bytes_by_slot[slot] for slot in slots), default=0)
        self.adapter_mapping.update(by_token, self.base.device, stacked=widest * len(slots) <= STACKED_BYTES)

    def close(self) -> None:
        """Restore the base model's own layers."""
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
