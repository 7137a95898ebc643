"""Compare the Triton kernels with the torch implementation under Triton's interpreter. `test_triton` runs it as a program."""

from __future__ import annotations

import itertools
import random

import torch

from compass_ray.adapters.folded_layer import fold_layer
from compass_ray.engine.adapter_mapping import AdapterMapping, TokenAdapters
from compass_ray.engine.multi_adapter_linear import MultiAdapterLinear
from compass_ray.engine.triton import op

MATCHES = "equal"
# 600 inputs are two splits of the sum, the second one partial; 70 outputs are two blocks.
INNER, OUT = 600, 70
RANKS = (1, 3, 16, 20)


def random_mapping(tokens: int, seed: int, *, blends: bool) -> list[TokenAdapters]:
    draw = random.Random(seed)
    slots = range(len(RANKS) + 2)  # the last one has no weights in this layer
    by_token: list[TokenAdapters] = [((slot, 1.0),) if slot else () for slot in draw.choices(slots, k=tokens)]
    if blends:
        by_token[::3] = [((1, 0.25), (draw.choice((2, 3)), 0.5)) for _ in by_token[::3]]
    return by_token


def layer_with_adapters(dtype: torch.dtype, device: str, *, biased: bool) -> MultiAdapterLinear:
    torch.manual_seed(0)
    layer = torch.nn.Linear(INNER, OUT, bias=biased).to(device, dtype).requires_grad_(False)
    with torch.no_grad():
        layer.weight[::7] = 0
    multi_adapter = MultiAdapterLinear(layer, AdapterMapping())
    for slot, rank in enumerate(RANKS, start=1):
        magnitude, b = None if slot == 2 else 0.5 + torch.rand(OUT), torch.randn(OUT, rank)
        b[::14] = 0  # these rows of the adapted weight have length zero
        multi_adapter.set_adapter(slot, fold_layer(layer.weight, torch.randn(rank, INNER) / INNER**0.5, b, magnitude, 0.5))
    return multi_adapter


@torch.inference_mode()
def compare(dtype: torch.dtype, device: str, *, biased: bool, blends: bool) -> None:
    multi_adapter = layer_with_adapters(dtype, device, biased=biased)
    x, by_token = torch.randn(1, 40, INNER).to(device, dtype), random_mapping(40, 7, blends=blends)
    multi_adapter.adapter_mapping.update(by_token, x.device)
    table = op.build_weight_table(multi_adapter.adapters, len(RANKS) + 2, x.device)
    plain = multi_adapter.base(x)[0]
    expected, found = plain.clone(), plain.clone()
    multi_adapter.apply_torch(x[0], expected)
    op.add_adapters(table, multi_adapter.adapter_mapping, x[0], found, multi_adapter.base.bias)
    base = [i for i, adapters in enumerate(by_token) if not adapters]
    assert torch.equal(found[base], plain[base])
    assert bool(expected.isfinite().all())
    limit = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 0.03}[dtype]
    assert (found - expected).abs().max() < limit * float(expected.abs().max()), (dtype, biased, blends)


if __name__ == "__main__":
    # The interpreter multiplies bfloat16 as integers; float16 takes the same path through the kernels.
    for kind, bias, mixed in itertools.product((torch.float32, torch.float16), (False, True), (False, True)):
        compare(kind, "cpu", biased=bias, blends=mixed)
    print(MATCHES)
