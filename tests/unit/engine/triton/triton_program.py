"""Compares the fused kernels with the plain path under Triton's interpreter; run by test_fused as a program."""

from __future__ import annotations

import itertools
import random

import torch

from compass_ray.adapters.folded_layer import fold_layer
from compass_ray.engine.adapter_mapping import AdapterMapping, TokenAdapters
from compass_ray.engine.multi_adapter_linear import MultiAdapterLinear
from compass_ray.engine.triton import op

MATCHES = "equal"
# 600 inputs are two splits of the sum, the second one not whole; 70 outputs two blocks.
INNER, OUT = 600, 70
RANKS = (1, 3, 16, 20)


def wears_of(tokens: int, seed: int, *, blends: bool) -> list[TokenAdapters]:
    draw = random.Random(seed)
    slots = range(len(RANKS) + 2)  # the last one leaves this layer alone
    found: list[TokenAdapters] = [((slot, 1.0),) if slot else () for slot in draw.choices(slots, k=tokens)]
    if blends:
        found[::3] = [((1, 0.25), (draw.choice((2, 3)), 0.5)) for _ in found[::3]]
    return found


def routed_layer(dtype: torch.dtype, device: str, *, biased: bool) -> MultiAdapterLinear:
    torch.manual_seed(0)
    layer = torch.nn.Linear(INNER, OUT, bias=biased).to(device, dtype).requires_grad_(False)
    routed = MultiAdapterLinear(layer, AdapterMapping())
    for slot, rank in enumerate(RANKS, start=1):
        magnitude = None if slot == 2 else 0.5 + torch.rand(OUT)
        routed.set_adapter(slot, fold_layer(layer, torch.randn(rank, INNER) / INNER**0.5, torch.randn(OUT, rank), magnitude, 0.5))
    return routed


@torch.inference_mode()
def compare(dtype: torch.dtype, device: str, *, biased: bool, blends: bool) -> None:
    routed = routed_layer(dtype, device, biased=biased)
    x, wears = torch.randn(1, 40, INNER).to(device, dtype), wears_of(40, 7, blends=blends)
    routed.adapter_mapping.update(wears, x.device)
    table = op.build_weight_table(routed.adapters, len(RANKS) + 2, x.device)
    plain = routed.base(x)[0]
    expected, found = plain.clone(), plain.clone()
    routed.apply_torch(x[0], expected)
    op.add_adapters(table, routed.adapter_mapping, x[0], found, routed.base.bias)
    base = [i for i, wear in enumerate(wears) if not wear]
    assert torch.equal(found[base], plain[base])
    limit = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 0.03}[dtype]
    assert (found - expected).abs().max() < limit * float(expected.abs().max()), (dtype, biased, blends)


if __name__ == "__main__":
    # The interpreter multiplies bfloat16 as whole numbers; float16 takes the same way through the kernels.
    for kind, bias, mixed in itertools.product((torch.float32, torch.float16), (False, True), (False, True)):
        compare(kind, "cpu", biased=bias, blends=mixed)
    print(MATCHES)
