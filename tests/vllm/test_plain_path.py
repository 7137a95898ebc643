"""The path that GPUs take, with vLLM's own operations, on a CPU: the same replies as PEFT's."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.vllm_plugin.installation import PLAIN_VARIABLE

from .engines import start_engine
from .peft_models import generate, load_peft, make_adapters, make_model, make_prompts


def test_the_path_of_tensor_operations_replies_as_peft_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLAIN_VARIABLE, "1")
    model = make_model("qwen2", tmp_path / "base")
    names: list[str | None] = [None, *make_adapters(model, tmp_path)]
    prompts = make_prompts(480)
    # One slot stays free: vLLM 0.32 gives base rows the adapter of the last slot on a CPU.
    with start_engine(tmp_path / "base", tmp_path, max_loras=len(names)) as engine:
        requests = [(name, prompt) for prompt in prompts for name in names]
        found = engine.generate(requests, 64)
    for (name, prompt), reply in zip(requests, found, strict=True):
        expected = generate(load_peft(tmp_path / "base", tmp_path / name if name else None), prompt, 64)
        assert reply.tokens == expected.tokens, name
        assert reply.logprobs == pytest.approx(expected.logprobs, abs=1e-4), name
