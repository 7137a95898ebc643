"""Adapters resident on one base model, by name.

Key property: an adapter is checked whole before anything changes, so a directory that is damaged or made for another
base is refused and whatever was served under that name goes on. Generates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from compass_ray.models.base import BaseModel
from compass_ray.models.dora import replace_module
from compass_ray.models.errors import ModelError
from compass_ray.models.peft_directory import StoredAdapter, read_adapter
from compass_ray.models.routing import BASE, LayerWeights, RoutedLinear, Routing, prepare

_PREFIX = "base_model.model."
_PARTS = {".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_magnitude_vector": "m"}


class AdapterBank:
    """The adapters on a base model; its layers are wrapped as adapters need them."""

    def __init__(self, base: BaseModel) -> None:
        """Start without adapters."""
        self.base = base
        self.routing = Routing()
        self._layers: dict[str, RoutedLinear] = {}
        self._slots: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the resident adapters, sorted."""
        return tuple(sorted(self._slots))

    def load(self, name: str, folder: Path) -> None:
        """Make the adapter of a PEFT directory resident, in the place of one of the same name.

        Raises:
            ModelError: it is damaged, was made for another base, or needs what is not served; nothing has changed then.
        """
        weights = self._prepared(folder)
        for path in weights.keys() - self._layers.keys():
            self._layers[path] = RoutedLinear(self._linear(path), self.routing)
            replace_module(self.base.model, path, self._layers[path])
        slot = self._slots.get(name, self._free())
        for path, layer in self._layers.items():
            layer.put(slot, weights.get(path))
        self._slots[name] = slot

    def unload(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ModelError: there is none of this name.
        """
        slot = self.slot(name)
        del self._slots[name]
        for layer in self._layers.values():
            layer.put(slot, None)

    def slot(self, name: str | None) -> int:
        """The slot of an adapter; None is the base model.

        Raises:
            ModelError: there is none of this name.
        """
        if name is None:
            return BASE
        if name not in self._slots:
            raise ModelError(f"adapter {name!r} is not loaded; loaded: {', '.join(self.names) or 'none'}")
        return self._slots[name]

    def route(self, slots: Sequence[int]) -> None:
        """Send row i of the next forward passes to ``slots[i]``."""
        self.routing.set(list(slots), self.base.device)

    def close(self) -> None:
        """Put the base's own layers back."""
        for path, layer in self._layers.items():
            replace_module(self.base.model, path, layer.base)
        self._layers.clear()
        self._slots.clear()

    def _free(self) -> int:
        used = set(self._slots.values())
        return next(slot for slot in range(BASE + 1, len(used) + 2) if slot not in used)

    def _prepared(self, folder: Path) -> dict[str, LayerWeights]:
        stored = read_adapter(folder)
        try:
            return {path: self._layer(path, parts, stored) for path, parts in _by_layer(stored.tensors).items()}
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from None

    def _layer(self, path: str, parts: Mapping[str, Tensor], stored: StoredAdapter) -> LayerWeights:
        if not {"a", "b"} <= parts.keys() or ("m" in parts) != stored.dora:
            raise ModelError(f"the adapter has only {', '.join(sorted(parts))} for {path}; it is damaged, copy it again")
        return prepare(self._linear(path), parts["a"], parts["b"], parts.get("m"), stored.scaling)

    def _linear(self, path: str) -> nn.Linear:
        try:
            module = self.base.model.get_submodule(path)
        except AttributeError:
            raise ModelError(f"the base model has no layer {path}; the adapter was made for another base model") from None
        if isinstance(module, RoutedLinear):
            return module.base
        if type(module) is not nn.Linear:
            raise ModelError(f"layer {path} is a {type(module).__name__}; only plain linear layers can be served")
        return module


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        ending = next((end for end in _PARTS if name.endswith(end)), None)
        if ending is None or not name.startswith(_PREFIX):
            raise ModelError(f"the adapter holds {name}, which is neither LoRA nor DoRA on a linear layer")
        layers.setdefault(name[len(_PREFIX) : -len(ending)], {})[_PARTS[ending]] = tensor
    return layers
