"""What a PEFT directory stores of a DoRA adapter for each layer: A, B, m and the scaling. Fails on anything incomplete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compass_ray.vllm_plugin.errors import DoraAdapterError
from compass_ray.vllm_plugin.tensor_names import is_magnitude

NameParser = Callable[[str], tuple[str, bool]]
"""vLLM's module of a tensor's name, and whether the tensor is A."""
MAX_NAMES = 4
"""Layers that an error names."""


@dataclass(frozen=True)
class DoraFactors:
    """One layer of an adapter, in float32 on the CPU, as stored."""

    a: Tensor
    """[r, in]."""
    b: Tensor
    """[out, r]."""
    magnitude: Tensor
    """[out]."""
    scaling: float
    """c: alpha / r, or alpha / sqrt(r) with rsLoRA."""


def split_magnitudes(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of LoRA, and the magnitudes."""
    return (
        {name: tensor for name, tensor in tensors.items() if not is_magnitude(name)},
        {name: tensor for name, tensor in tensors.items() if is_magnitude(name)},
    )


def require_no_magnitudes(magnitudes: Mapping[str, Tensor]) -> None:
    """Refuse the magnitudes of an adapter whose configuration says LoRA.

    Raises:
        DoraAdapterError: there is one.
    """
    if magnitudes:
        raise DoraAdapterError(
            f"The adapter has magnitude vectors ({_shorten(magnitudes)}), but use_dora is false in adapter_config.json."
        )


def collect_factors(tensors: Mapping[str, Tensor], parse: NameParser, scalings: Mapping[str, float]) -> dict[str, DoraFactors]:
    """Factors of each module in ``scalings``.

    ``tensors`` are those of the directory; ``parse`` gives the module of a name, also of a magnitude's; ``scalings`` has the
    modules of the adapter that vLLM read.

    Raises:
        DoraAdapterError: a module has no A, no B or no magnitude; a magnitude has no module; shapes do not fit together; or a
            value is not finite.
    """
    parts = _group_by_module(tensors, parse)
    _require_same(parts, scalings, "a", "no A factor")
    _require_same(parts, scalings, "b", "no B factor")
    _require_same(parts, scalings, "m", "no magnitude vector, but use_dora is true in adapter_config.json")
    surplus = sorted(set(parts) - set(scalings))
    if surplus:
        raise DoraAdapterError(f"Magnitude vectors have no A and B: {_shorten(surplus)}.")
    return {module: _make_factors(module, parts[module], scaling) for module, scaling in scalings.items()}


def _group_by_module(tensors: Mapping[str, Tensor], parse: NameParser) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, is_a = parse(name)
        parts.setdefault(module, {})["m" if is_magnitude(name) else "a" if is_a else "b"] = tensor
    return parts


def _require_same(parts: Mapping[str, Mapping[str, Tensor]], scalings: Mapping[str, float], part: str, fault: str) -> None:
    without = [module for module in scalings if part not in parts.get(module, {})]
    if without:
        raise DoraAdapterError(f"Layers of the adapter have {fault}: {_shorten(without)}.")


def _make_factors(module: str, parts: Mapping[str, Tensor], scaling: float) -> DoraFactors:
    a, b, magnitude = (parts[part].to("cpu", torch.float32) for part in ("a", "b", "m"))
    factors = DoraFactors(a, b, magnitude.flatten(), float(scaling))
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or b.shape[0] != len(factors.magnitude):
        shapes = f"A {tuple(a.shape)}, B {tuple(b.shape)}, magnitude {tuple(magnitude.shape)}"
        raise DoraAdapterError(f"The shapes of {module} do not fit together: {shapes}.")
    if not all(bool(tensor.isfinite().all()) for tensor in (a, b, magnitude)):
        raise DoraAdapterError(f"{module} has values that are not finite. The adapter is damaged.")
    return factors


def _shorten(names: Mapping[str, object] | list[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return ", ".join(shown[:MAX_NAMES]) + more
