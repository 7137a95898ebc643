"""Every adapter of a run of twelve languages: the engine's replies and log-probabilities against PEFT's merged models."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from compass_ray import pipeline
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config, with_overrides
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.models.base_model import BaseModel, load_base
from tests.unit.random_adapters import merged

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
LANGUAGES = ("am", "bn", "de", "el", "hi", "ja", "ko", "ru", "sw", "te", "yo", "zh")
TOKENS = 64
ROWS = 32
LISTED = 20
"""Likely tokens whose log-probabilities are compared, at every place."""
NATS = 1e-4


@dataclass(frozen=True)
class Reply:
    """Token ids by transformers, and at each place the log-probabilities of all tokens, float32[n, v]."""

    ids: list[int]
    logprobs: torch.Tensor


@pytest.fixture(scope="module")
def run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    # Six epochs, not the preset's one, after which no adapter changes a greedy reply of the base.
    values = [f"languages=[{','.join(LANGUAGES)}]", "train.epochs=6", "resources.train_workers=2"]
    config = with_overrides(load_run_config("atlas-42"), values)
    made = RunDir(str(tmp_path_factory.mktemp("twelve") / "run"))
    pipeline.run_all(config, made, until="train")
    return made


@pytest.fixture(scope="module")
def base(run: RunDir) -> BaseModel:
    return load_base(run.read_config().train, device="cpu")


@pytest.fixture(scope="module")
def prompts(run: RunDir) -> dict[str, list[str]]:
    return {code: run.guide(code).read_table("guide.parquet", ["prompt"])["prompt"].to_pylist()[:4] for code in LANGUAGES}


@pytest.fixture(scope="module")
def engine(run: RunDir, base: BaseModel) -> Iterator[Engine]:
    """With every adapter, on a copy of the base."""
    engine = Engine(
        load_base(run.read_config().train, device="cpu"),
        EngineConfig(max_num_seqs=ROWS, max_model_len=256, prefill_chunk_tokens=96),
    )
    # A trained reply is a few words long: nothing ends one here, so that all of them are compared over 64 tokens.
    engine.model_runner.eos_token_ids = frozenset()
    for code in LANGUAGES:
        with run.adapter(code, "v0001").local_folder() as folder:
            engine.load_adapter(code, folder)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def replies(run: RunDir, base: BaseModel, engine: Engine, prompts: dict[str, list[str]]) -> dict[tuple[str | None, str], Reply]:
    """What transformers generates, by adapter and prompt; the base's own to each language's first prompt."""
    found: dict[tuple[str | None, str], Reply] = {}
    for code in LANGUAGES:
        with run.adapter(code, "v0001").local_folder() as folder:
            model = merged(base, Path(folder))
        for prompt in prompts[code]:
            found[code, prompt] = oracle(model, engine.tokenize(order(None, prompt)))
        found[None, prompts[code][0]] = oracle(base.model, engine.tokenize(order(None, prompts[code][0])))
    return found


def order(adapter: str | None, prompt: str) -> GenerationRequest:
    return GenerationRequest((("user", prompt),), adapter, max_tokens=TOKENS, logprobs=LISTED)


@torch.inference_mode()
def oracle(model: Any, prompt: list[int]) -> Reply:
    ids = torch.tensor([prompt])
    model.generation_config.eos_token_id = None
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    assert found.shape[1] == len(prompt) + TOKENS
    logits = model(input_ids=found).logits[0, len(prompt) - 1 : -1].float()
    return Reply(found[0, len(prompt) :].tolist(), logits.log_softmax(-1))


def check(engine: Engine, answer: GenerationOutput, reply: Reply) -> None:
    tokenizer = engine.base.tokenizer
    assert answer.text == tokenizer.decode(reply.ids, skip_special_tokens=True)
    assert [score.token_id for score in answer.logprobs] == reply.ids
    chosen = reply.logprobs.gather(1, torch.tensor(reply.ids)[:, None])[:, 0]
    assert (torch.tensor([score.logprob for score in answer.logprobs]) - chosen).abs().max() < NATS
    likeliest = torch.tensor([[each.logprob for each in score.top_logprobs] for score in answer.logprobs])
    assert (likeliest - reply.logprobs.topk(LISTED).values).abs().max() < NATS


@pytest.mark.parametrize("code", LANGUAGES)
def test_an_adapter_alone_is_its_merged_model(
    engine: Engine, prompts: dict[str, list[str]], replies: dict[tuple[str | None, str], Reply], code: str
) -> None:
    for prompt in prompts[code]:
        check(engine, engine.generate([order(code, prompt)])[0], replies[code, prompt])


def test_in_mixed_batches_with_rows_of_the_base_too(engine: Engine, replies: dict[tuple[str | None, str], Reply]) -> None:
    keys = list(replies)
    random.Random(0).shuffle(keys)
    keys += keys[: -len(keys) % ROWS]
    for start in range(0, len(keys), ROWS):
        batch = keys[start : start + ROWS]
        assert len({adapter for adapter, _ in batch}) > ROWS // 4
        assert any(adapter is None for adapter, _ in batch)
        for key, answer in zip(batch, engine.generate([order(*key) for key in batch]), strict=True):
            check(engine, answer, replies[key])


def test_the_adapters_change_what_the_base_says(
    replies: dict[tuple[str | None, str], Reply], prompts: dict[str, list[str]]
) -> None:
    pairs = [(replies[code, prompts[code][0]], replies[None, prompts[code][0]]) for code in LANGUAGES]
    assert all((adapted.logprobs[0] - plain.logprobs[0]).abs().max() > 1000 * NATS for adapted, plain in pairs)
    assert sum(adapted.ids != plain.ids for adapted, plain in pairs) > len(LANGUAGES) // 2
