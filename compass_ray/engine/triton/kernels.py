"""Two Triton kernels that add adapters to a linear layer's output: `shrink` to low rank, then `expand`, scale and add.

Sums are float32. A tile of tokens reads its adapter's factors once, through a table of addresses, so nothing is copied or
padded. Only elements of tokens with an adapter are written. Without Triton, which torch installs for CUDA, the module can be
imported but the kernels cannot run.
"""
# mypy: ignore-errors

from __future__ import annotations

try:
    import triton
    import triton.language as tl

    jit = triton.jit
except ImportError:

    def jit(**_):
        """Stand in for Triton's decorator: leave the kernel unchanged."""
        return lambda kernel: kernel


# Compiled once, not once for every number of tiles.
@jit(do_not_specialize=["tiles"])
def shrink(
    x, low, a_at, rank_of, slot_of, rows, inner, tiles, SPLIT: tl.constexpr, TILE: tl.constexpr, R: tl.constexpr, K: tl.constexpr
):  # fmt: skip
    """low[split, tile] float32 [TILE, R] = the tile's tokens of ``x`` [t, inner], over one split of ``inner``, times A^T.

    Program (tile, split). Splits keep a GPU's cores busy when a decoding step has few tokens.
    """
    tile, split = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slot_of + tile)
    rank = tl.load(rank_of + slot)
    if rank == 0:
        return
    a = tl.load(a_at + slot).to(tl.pointer_type(x.dtype.element_ty))
    lane, r = tl.arange(0, TILE), tl.arange(0, R)
    row = tl.load(rows + tile * TILE + lane)
    total = tl.zeros([TILE, R], dtype=tl.float32)
    for start in range(split * SPLIT, split * SPLIT + SPLIT, K):
        k = start + tl.arange(0, K)
        inside = k < inner
        taken = tl.load(x + row[:, None] * inner + k[None, :], mask=(row >= 0)[:, None] & inside[None, :], other=0.0)
        factor = tl.load(a + r[None, :] * inner + k[:, None], mask=(r < rank)[None, :] & inside[:, None], other=0.0)
        total += tl.dot(taken, factor, input_precision="ieee")
    tl.store(low + ((split * tiles + tile) * TILE + lane[:, None]) * R + r[None, :], total)


@jit(do_not_specialize=["first", "tiles"])
def expand(
    y, frozen, bias, low, b_at, shift_at, rank_of, slot_of, rows, weights, first, out, tiles,
    BIASED: tl.constexpr, SPLITS: tl.constexpr, TILE: tl.constexpr, R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """``y`` [t, out] += weight * (low B + (frozen - bias) * shift) for the tiles from ``first`` on; program (tile, columns)."""
    tile = first + tl.program_id(0)
    slot = tl.load(slot_of + tile)
    rank = tl.load(rank_of + slot)
    if rank == 0:
        return
    b = tl.load(b_at + slot).to(tl.pointer_type(y.dtype.element_ty))
    lane, r, n = tl.arange(0, TILE), tl.arange(0, R), tl.program_id(1) * N + tl.arange(0, N)
    row = tl.load(rows + tile * TILE + lane)
    here = (row >= 0)[:, None] & (n < out)[None, :]
    total = tl.zeros([TILE, R], dtype=tl.float32)
    for split in range(SPLITS):
        total += tl.load(low + ((split * tiles + tile) * TILE + lane[:, None]) * R + r[None, :])
    factor = tl.load(b + r[:, None] * out + n[None, :], mask=(r < rank)[:, None] & (n < out)[None, :], other=0.0)
    added = tl.dot(total, factor.to(tl.float32), input_precision="ieee")
    address = tl.load(shift_at + slot)
    if address != 0:
        shift = tl.load(address.to(tl.pointer_type(tl.float32)) + n, mask=n < out, other=0.0)
        gain = tl.load(frozen + row[:, None] * out + n[None, :], mask=here, other=0.0).to(tl.float32)
        if BIASED:
            gain -= tl.load(bias + n, mask=n < out, other=0.0).to(tl.float32)[None, :]
        added += gain * shift[None, :]
    weight = tl.load(weights + tile * TILE + lane)
    before = tl.load(y + row[:, None] * out + n[None, :], mask=here, other=0.0).to(tl.float32)
    after = before + added * weight[:, None]
    tl.store(y + row[:, None] * out + n[None, :], after.to(y.dtype.element_ty), mask=here)
