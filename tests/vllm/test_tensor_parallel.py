"""Two ranks reply as PEFT does: biases, packed layers and row-parallel ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from .engines import start_engine
from .peft_models import LAYERS, generate, load_peft, make_adapters, make_model, make_prompts

TOKENS = 64
CASES = [pytest.param("qwen2", {}, LAYERS, id="biases")]


@pytest.mark.parametrize(("family", "sizes", "modules"), CASES)
def test_two_ranks_reply_as_peft_does(tmp_path: Path, family: str, sizes: dict[str, Any], modules: Sequence[str]) -> None:
    model = make_model(family, tmp_path / "base", **sizes)
    names: list[str | None] = [None, *make_adapters(model, tmp_path, modules)]
    prompts = make_prompts(480, (5, 21))
    with start_engine(tmp_path / "base", tmp_path, tensor_parallel_size=2, disable_custom_all_reduce=True) as engine:
        requests = [(name, prompt) for prompt in prompts for name in names]
        found = engine.generate(requests, TOKENS)
        _refuse_damaged(engine, tmp_path)
        again = engine.generate(requests[:3], TOKENS)
    for reply, former in zip(again, found[:3], strict=True):
        assert reply.tokens == former.tokens
        assert reply.logprobs == pytest.approx(former.logprobs, abs=1e-4)
    for (name, prompt), reply in zip(requests, found, strict=True):
        expected = generate(load_peft(tmp_path / "base", tmp_path / name if name else None), prompt, TOKENS)
        assert reply.tokens == expected.tokens, name
        assert reply.logprobs == pytest.approx(expected.logprobs, abs=1e-4), name


def _refuse_damaged(engine: Any, folder: Path) -> None:
    """A refusal on all ranks: none of them waits for another."""
    damaged = folder / "damaged"
    damaged.mkdir()
    (damaged / "adapter_config.json").write_bytes((folder / "dora" / "adapter_config.json").read_bytes())
    tensors = load_file(folder / "dora" / "adapter_model.safetensors")
    save_file(
        {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}, damaged / "adapter_model.safetensors"
    )
    with pytest.raises(Exception, match="not finite"):
        engine.add("damaged")
