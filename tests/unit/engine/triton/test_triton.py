"""The Triton kernels, run by Triton's interpreter on the CPU, against the torch implementation."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import util

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.engine.adapter_mapping import AdapterMapping
from compass_ray.engine.triton import op
from compass_ray.engine.triton.tiles import TILE, build_tiles
from tests.unit.engine.triton.triton_program import MATCHES, compare

CPU = torch.device("cpu")
TOKENS = st.dictionaries(st.integers(0, 70), st.floats(0.1, 1.0), min_size=1)


@given(st.dictionaries(st.integers(1, 9), TOKENS, min_size=1))
def test_tiles_hold_every_pair_once_and_no_token_twice_in_a_round(members: dict[int, dict[int, float]]) -> None:
    tiles = build_tiles(members, CPU)
    found = []
    for first, end in tiles.rounds:
        tokens = tiles.tokens[first:end]
        assert len(tokens[tokens >= 0].unique()) == (tokens >= 0).sum()
        for slot, row, weight in zip(tiles.slot[first:end], tokens, tiles.weight[first:end], strict=True):
            found += [(int(slot), int(t), float(w)) for t, w in zip(row, weight, strict=True) if t >= 0]
    weights = {(slot, token): weight for slot, tokens in members.items() for token, weight in tokens.items()}
    assert tiles.tokens.shape == (len(tiles), TILE)
    assert {(slot, token): pytest.approx(weight) for slot, token, weight in found} == weights
    assert len(found) == len(weights)


def test_a_mapping_builds_its_tiles_once() -> None:
    mapping = AdapterMapping()
    mapping.update([((1, 1.0),), ()], CPU)
    assert mapping.tiles is mapping.tiles
    mapping.update([((2, 1.0),)], CPU)
    assert mapping.tiles.slot.tolist() == [2]


def test_triton_is_not_used_without_a_gpu() -> None:
    assert not op.is_supported(torch.zeros(1))


@pytest.mark.skipif(util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_equal_torch_under_triton_s_interpreter() -> None:
    # A separate process: Triton reads the variable at import, and another test may have imported it.
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.engine.triton.triton_program"],
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [MATCHES]


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and util.find_spec("triton")), reason="needs a CUDA device and Triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("blends", [False, True])
def test_kernels_equal_torch_on_a_gpu(dtype: torch.dtype, biased: bool, blends: bool) -> None:
    compare(dtype, "cuda", biased=biased, blends=blends)
