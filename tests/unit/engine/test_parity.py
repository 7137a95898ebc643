"""Twelve adapters and the base model in one batch of 32 requests: 64 greedy tokens and scores equal those of merged models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from compass_ray.config import AdapterConfig
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import encode_prompt
from tests.unit.random_adapters import merged, random_adapter
from tests.unit.tiny_models import LAYERS

FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
ADAPTERS = 12
ROWS = 32
TOKENS = 64
_SLOW = pytest.mark.slow


@dataclass(frozen=True)
class Expected:
    """Greedy ids of a merged model by transformers' own generation, and the log-probability of each."""

    text: str
    logprobs: list[float]


def expected(base: BaseModel, model: Any, prompt: str) -> Expected:
    ids = torch.tensor([encode_prompt(base.tokenizer, prompt, 1000)])
    ends = {"eos_token_id": base.tokenizer.eos_token_id, "pad_token_id": base.tokenizer.pad_token_id}
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, **ends)[0]
    reply = [token for token in tokens[ids.shape[1] :].tolist() if token != base.tokenizer.eos_token_id]
    with torch.inference_mode():
        logprobs = model(tokens[None]).logits[0].log_softmax(-1)
    at = range(ids.shape[1], ids.shape[1] + len(reply))
    return Expected(
        base.tokenizer.decode(reply, skip_special_tokens=True),
        [float(logprobs[i - 1, t]) for i, t in zip(at, reply, strict=True)],
    )


@pytest.mark.parametrize("architecture", ["qwen2", pytest.param("llama", marks=_SLOW), pytest.param("phi3", marks=_SLOW)])
def test_greedy_replies_equal_those_of_merged_models_alone_and_mixed(
    make_base: Callable[..., BaseModel], tmp_path: Path, architecture: str
) -> None:
    base = make_base(architecture, seed=11)
    layers = FUSED if architecture == "phi3" else LAYERS
    names: list[str | None] = [None]
    models: dict[str | None, Any] = {None: base.model}
    for i in range(ADAPTERS):
        name = f"l{i}@v0001"
        config = AdapterConfig(kind="lora" if i % 4 == 3 else "dora", r=1 + i, alpha=2 + 2 * i, target_modules=layers)
        random_adapter(base, tmp_path / name, config, seed=i)
        models[name] = merged(base, tmp_path / name)
        names.append(name)
    prompts = [(f"{'What is the capital of ' * (i % 3)}Kenya {i}", names[i % len(names)]) for i in range(ROWS)]
    all_expected = [expected(base, models[name], prompt) for prompt, name in prompts]
    engine = Engine(base, EngineConfig(max_num_seqs=ROWS, max_model_len=256, prefill_chunk_tokens=100))
    for name in names[1:]:
        engine.load_adapter(str(name), tmp_path / str(name))
    requests = [GenerationRequest((("user", prompt),), name, max_tokens=TOKENS, logprobs=0) for prompt, name in prompts]
    mixed = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests]
    for found, single, want in zip(mixed, alone, all_expected, strict=True):
        assert found.text == single.text == want.text
        assert _scores(found) == pytest.approx(want.logprobs, abs=1e-4)
    assert len({each.text for each in all_expected}) > ADAPTERS


def _scores(output: GenerationOutput) -> list[float]:
    return [score.logprob for score in output.logprobs]
