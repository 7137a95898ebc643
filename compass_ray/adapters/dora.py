"""DoRA and LoRA on a linear layer, for training and for one adapter at a time (COMPASS, section 3.2.4).

    y = s * (W x + (alpha / r) B A x) + bias,    s = m / ||W + (alpha / r) B A||  per output row   (DoRA)
    y =      W x + (alpha / r) B A x  + bias                                                        (LoRA)

At initialization (B = 0, m = ||W||) the layer equals the base layer. The norm is computed from the factors, so the dense
product B A is never built. W is only read. The norm is constant in the gradient, as in section 4.3 of the DoRA paper (Liu et
al. 2024). A row of length zero has s = 1, so that B can leave zero; then m starts from 0. `engine` serves many adapters in one
batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from compass_ray.adapters.autograd_functions import AdaptedProduct
from compass_ray.adapters.peft_io import StoredAdapter, read_adapter
from compass_ray.config import AdapterConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError


def row_norms(weight: Tensor, a: Tensor, b: Tensor, scaling: float, squared: Tensor | None = None) -> Tensor:
    """float32[out] norms of the rows of W + scaling B A, computed from its factors.

    ``weight`` is [out, in], ``a`` [r, in], ``b`` [out, r]; ``squared`` is ||W||^2 of each row if already known. Uses
    ||w + c b A||^2 = ||w||^2 + 2 c b (A w) + c^2 b (A A^T) b^T, which costs r / in of the dense form.
    """
    a32, b32 = a.float(), b.float()
    base = squared if squared is not None else weight.float().square().sum(1)
    cross = ((weight @ a.to(weight.dtype).T).float() * b32).sum(1)
    low_rank = ((b32 @ (a32 @ a32.T)) * b32).sum(1)
    square: Tensor = base + 2 * scaling * cross + scaling * scaling * low_rank
    return square.clamp_min(0).sqrt()


def dora_scale(magnitude: Tensor, norm: Tensor) -> Tensor:
    """s = m / norm, float32[out], and 1 where the norm is zero: the output of such a row is zero at any finite scale.

    ``magnitude`` and ``norm`` are float32[out]. The gradient of the magnitude is zero where the norm is.
    """
    is_zero = norm == 0
    return (magnitude / norm.masked_fill(is_zero, 1.0)).masked_fill(is_zero, 1.0)


class AdaptedLinear(nn.Module):
    """A frozen linear layer with one trainable adapter."""

    def __init__(self, base: nn.Linear, config: AdapterConfig, generator: torch.Generator) -> None:
        """Initialize A uniformly (Kaiming, as PEFT does), B with zeros, and m with the norms of W's rows."""
        super().__init__()
        self.base = base
        self.scaling = config.alpha / config.r
        self.dropout = config.dropout
        device, dtype = base.weight.device, torch.float32
        bound = 1 / math.sqrt(base.in_features)
        a = torch.rand(config.r, base.in_features, generator=generator) * (2 * bound) - bound
        self.a = nn.Parameter(a.to(device, dtype))
        self.b = nn.Parameter(torch.zeros(base.out_features, config.r, device=device, dtype=dtype))
        self.squared_row_norms = base.weight.float().square().sum(1)
        self.m = nn.Parameter(self.squared_row_norms.sqrt().clone()) if config.kind == "dora" else None
        self._frozen_scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Adapted output [..., out] of ``x`` [..., in]."""
        scale = None if self.m is None else self.scale()
        b = self.b * self.scaling if scale is None else self.b * (scale * self.scaling)[:, None]
        a, b = self.a.to(x.dtype), b.to(x.dtype)
        gain = None if scale is None else (scale - 1).to(x.dtype)
        if not (self.dropout and self.training):
            y: Tensor = AdaptedProduct.apply(x, self.base.weight, self.base.bias, a, b, gain)  # type: ignore[no-untyped-call]
            return y
        dropped = functional.dropout(x, self.dropout)
        frozen = functional.linear(x, self.base.weight)
        added = functional.linear(functional.linear(dropped, a), b)
        y = frozen + (added if gain is None else torch.addcmul(added, frozen, gain))
        return y if self.base.bias is None else y + self.base.bias

    def scale(self) -> Tensor:
        """s = m / ||W + (alpha / r) B A||, float32[out] (see `dora_scale`); the norm has no gradient."""
        if self._frozen_scale is not None:
            return self._frozen_scale
        assert self.m is not None
        with torch.no_grad():
            norm = row_norms(self.base.weight, self.a, self.b, self.scaling, self.squared_row_norms)
        return dora_scale(self.m, norm)

    def freeze(self) -> None:
        """Stop training: disable gradients and compute the scale once."""
        self.requires_grad_(False)
        if self.m is not None:
            self._frozen_scale = self.scale().detach()


@dataclass(frozen=True)
class AttachedAdapter:
    """An adapter on a base model: its layers by module path, which keep the original layers."""

    layers: Mapping[str, AdaptedLinear]
    model: nn.Module
    config: AdapterConfig

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by their PEFT names, in a fixed order."""
        return {name: parameter for path, layer in self.layers.items() for name, parameter in _named_parameters(path, layer)}

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the parameters."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the parameters.

        Raises:
            ModelError: names or shapes do not match this adapter.
        """
        parameters = self.parameters()
        check_fit({name: tuple(p.shape) for name, p in parameters.items()}, tensors)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])

    def to_peft(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of ``tensors``, parameters of this adapter, with which PEFT computes the same and never divides by zero.

        A row of length zero gets m = 0 and a row of B that is not zero, so m makes its output zero.
        """
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        for path, layer in self.layers.items():
            if layer.m is not None:
                a, b, m = (copies[name] for name, _ in _named_parameters(path, layer))
                is_zero = row_norms(layer.base.weight, a, b, layer.scaling, layer.squared_row_norms) == 0
                m[is_zero] = 0.0
                b[is_zero] = functional.one_hot(a.norm(dim=1).argmax(), len(a)).to(b.dtype)
        return copies

    def detach(self) -> None:
        """Restore the original layers; the model is bit-equal to before."""
        for path, layer in self.layers.items():
            replace_module(self.model, path, layer.base)


def attach(model: nn.Module, config: AdapterConfig, *, seed: int) -> AttachedAdapter:
    """Wrap every targeted linear layer of ``model`` in a new adapter.

    Raises:
        ModelError: no layer has a targeted name, or a targeted layer is not a plain linear layer or has weights that are not
            finite.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = find_target_layers(model, config.target_modules)
    layers = {path: AdaptedLinear(layer, config, generator) for path, layer in targets.items()}
    for path, layer in layers.items():
        _require_finite_weights(path, layer)
    for path, layer in layers.items():
        replace_module(model, path, layer)
    return AttachedAdapter(layers, model, config)


@contextmanager
def attach_for_training(model: nn.Module, stored: StoredAdapter) -> Iterator[AttachedAdapter]:
    """Attach a stored adapter to ``model`` with gradients; detach it at the end, also after an error.

    Raises:
        ModelError: the adapter was made for another model.
    """
    adapter = attach(model, stored.config(), seed=0)
    try:
        adapter.load(stored.tensors)
        for layer in adapter.layers.values():
            layer.scaling = stored.scaling
        yield adapter
    finally:
        adapter.detach()


@contextmanager
def with_adapter(base: BaseModel, folder: Path) -> Iterator[BaseModel]:
    """Attach the adapter of a PEFT directory to the base model; detach it at the end.

    Raises:
        ModelError: the directory is damaged, or its adapter was made for another base model.
    """
    with attach_for_inference(base.model, read_adapter(folder)):
        yield base


@contextmanager
def attach_for_inference(model: nn.Module, stored: StoredAdapter) -> Iterator[AttachedAdapter]:
    """Like `attach_for_training`, but without gradients and with the scales computed once."""
    with attach_for_training(model, stored) as adapter:
        for layer in adapter.layers.values():
            layer.freeze()
        yield adapter


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the adapter on ``model`` by their PEFT names; empty without an adapter."""
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, AdaptedLinear)]
    return {name: parameter for path, layer in layers for name, parameter in _named_parameters(path, layer)}


def find_target_layers(model: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Linear]:
    """Linear layers whose last name is in ``names``, by module path in the model's order.

    Raises:
        ModelError: no layer matches, or a match is not a plain linear layer.
    """
    targets = {path: module for path, module in model.named_modules() if path.rpartition(".")[2] in names}
    if not targets:
        raise ModelError(
            f"the base model has no layer named {', '.join(names)}; set train.adapter.target_modules to some of its linear "
            f"layers: {', '.join(list_linear_names(model))}"
        )
    return {path: _require_plain_linear(path, module) for path, module in targets.items()}


def find_unmatched_targets(model: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    """The ``names`` that no layer has, sorted. `find_target_layers` ignores them if another name matches."""
    return tuple(sorted(set(names) - {path.rpartition(".")[2] for path, _ in model.named_modules()}))


def list_linear_names(model: nn.Module) -> tuple[str, ...]:
    """Last names of all linear layers, sorted."""
    return tuple(sorted({path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, nn.Linear)}))


def _require_plain_linear(path: str, module: nn.Module) -> nn.Linear:
    if type(module) is not nn.Linear:
        raise ModelError(
            f"layer {path} is a {type(module).__name__}, but an adapter needs a plain linear layer; load the base model "
            f"unquantized and without another adapter"
        )
    return module


def _require_finite_weights(path: str, layer: AdaptedLinear) -> None:
    if not bool(layer.squared_row_norms.isfinite().all()):
        raise ModelError(
            f"layer {path} of the base model has NaN, infinity or values above 1e18 among its weights; download or convert the "
            f"model again"
        )


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Replace the submodule at ``path`` by ``module``."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def check_fit(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError unless ``tensors`` has exactly the expected names and shapes."""
    missing = sorted(expected.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - expected.keys())
    wrong = [n for n in expected.keys() & tensors.keys() if tuple(tensors[n].shape) != expected[n]]
    if missing or surplus or wrong:
        name = (missing or surplus or sorted(wrong))[0]
        kind = "lacks" if missing else "has an unknown" if surplus else "has another shape of"
        raise ModelError(
            f"the adapter {kind} {name} ({len(missing)} tensors missing, {len(surplus)} unknown, {len(wrong)} with another "
            f"shape); it was made for another base model or other target modules"
        )


def _named_parameters(path: str, layer: AdaptedLinear) -> Iterator[tuple[str, nn.Parameter]]:
    prefix = f"base_model.model.{path}"
    yield f"{prefix}.lora_A.weight", layer.a
    yield f"{prefix}.lora_B.weight", layer.b
    if layer.m is not None:
        yield f"{prefix}.lora_magnitude_vector", layer.m
