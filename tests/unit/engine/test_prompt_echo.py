"""The echo of a prompt against transformers: log-probability, likely tokens, text and offset of every token."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compass_ray.config import AdapterConfig
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.prompt_echo import MAX_SCORED_TOKENS
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError
from tests.unit.random_adapters import merged, random_adapter
from tests.unit.tiny_models import LAYERS

TEXTS = ["What is the capital of Kenya?", "Mji mkuu 🇰🇪 wa Kenya ni", "yes"]


def _score(base: BaseModel, requests: list[GenerationRequest], **limits: int) -> list[GenerationOutput]:
    engine = Engine(base, EngineConfig(max_num_seqs=4, max_model_len=200, kv_cache_gib=0.1, **limits))
    try:
        return engine.generate(requests)
    finally:
        engine.close()


def _ids(base: BaseModel, text: str) -> list[int]:
    return list(base.tokenizer(text)["input_ids"])


@torch.inference_mode()
def _log_probs(model: object, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(torch.tensor([ids])).logits[0]  # type: ignore[operator]
    return logits.double().log_softmax(-1)


def _check(base: BaseModel, output: GenerationOutput, ids: list[int], expected: torch.Tensor) -> None:
    assert output.prompt is not None
    scored = output.prompt.logprobs
    assert [each.token_id for each in scored] == ids
    assert math.isnan(scored[0].logprob)
    assert scored[0].top_logprobs == ()
    for position, each in enumerate(scored[1:]):
        assert each.logprob == pytest.approx(float(expected[position, ids[position + 1]]), abs=1e-4)
        values, tokens = expected[position].topk(2)
        assert [top.token_id for top in each.top_logprobs] == tokens.tolist()
        assert [top.logprob for top in each.top_logprobs] == pytest.approx(values.tolist(), abs=1e-4)


@pytest.mark.parametrize("chunk", [3, 512])
def test_prompts_of_one_batch(base: BaseModel, chunk: int) -> None:
    requests = [GenerationRequest(text=text, max_tokens=1, logprobs=2, echo=True) for text in TEXTS]
    plain = GenerationRequest(text=TEXTS[0], max_tokens=5, logprobs=2)
    outputs = _score(base, [*requests, plain], prefill_chunk_tokens=chunk)
    for text, output in zip(TEXTS, outputs, strict=False):
        ids = _ids(base, text)
        _check(base, output, ids, _log_probs(base.model, ids))
        assert output.prompt is not None
        assert output.prompt.text == text
        assert len(output.logprobs) == 1
        raw = [each.raw_bytes or b"" for each in output.prompt.logprobs]
        assert b"".join(raw).decode() == text
        offsets = [len(b"".join(raw[:index]).decode(errors="ignore")) for index in range(len(raw))]
        assert [each.text_offset for each in output.prompt.logprobs] == offsets
    alone = _score(base, [plain])[0]
    assert (outputs[-1].text, outputs[-1].prompt) == (alone.text, None)
    assert outputs[-1].mean_nll == pytest.approx(alone.mean_nll, abs=1e-5)


def test_token_ids_and_an_adapter(make_base: Callable[..., BaseModel], tmp_path: Path) -> None:
    base = make_base()
    random_adapter(base, tmp_path / "a", AdapterConfig(r=3, alpha=6, target_modules=LAYERS), seed=1)
    ids = _ids(base, TEXTS[1])
    expected = _log_probs(merged(base, tmp_path / "a"), ids)
    engine = Engine(base, EngineConfig(max_num_seqs=2, max_model_len=200, kv_cache_gib=0.1))
    engine.load_adapter("a", tmp_path / "a")
    (output,) = engine.generate([GenerationRequest(prompt_token_ids=ids, adapter="a", max_tokens=1, logprobs=2, echo=True)])
    engine.close()
    _check(base, output, ids, expected)


def test_without_log_probabilities_the_echo_is_text(base: BaseModel) -> None:
    (output,) = _score(base, [GenerationRequest(text=TEXTS[0], max_tokens=2, echo=True)])
    assert output.prompt is not None
    assert (output.prompt.text, output.prompt.logprobs, output.logprobs) == (TEXTS[0], (), ())


def test_a_reply_that_ends_at_once_has_one_score_so_that_the_prompt_can_be_counted(base: BaseModel) -> None:
    ids = _ids(base, TEXTS[0])
    likely = int(_log_probs(base.model, ids)[-1].argmax())
    base.model.generation_config.eos_token_id = [likely]
    request = GenerationRequest(text=TEXTS[0], max_tokens=1, logprobs=1, echo=True)
    echoed, plain = _score(base, [request, GenerationRequest(text=TEXTS[0], max_tokens=1, logprobs=1)])
    base.model.generation_config.eos_token_id = None
    assert ([each.token_id for each in echoed.logprobs], plain.logprobs) == ([likely], ())
    assert echoed.completion_tokens == plain.completion_tokens == 0


@pytest.mark.parametrize("ids", [[1, 10**6], [-1]])
def test_an_unknown_token_id_is_refused(base: BaseModel, ids: list[int]) -> None:
    with pytest.raises(ModelError, match="the model has 0 to"):
        _score(base, [GenerationRequest(prompt_token_ids=ids)])


def test_scored_prompts_wait_for_others_and_take_several_steps(base: BaseModel) -> None:
    ids = _ids(base, " ".join(TEXTS[:2] * 6))[:170]
    assert len(ids) > MAX_SCORED_TOKENS
    scored = GenerationRequest(prompt_token_ids=ids, max_tokens=1, logprobs=2, echo=True)
    plain = GenerationRequest(text=TEXTS[0], max_tokens=1)
    engine = Engine(base, EngineConfig(max_num_seqs=4, max_model_len=200, kv_cache_gib=0.1))
    numbers = [engine.add_request(each) for each in (scored, scored, plain)]
    finished = dict[int, GenerationOutput]()
    while engine.has_unfinished_requests:
        finished |= {each.request_id: each.final_output for each in engine.step() if each.final_output is not None}
    engine.close()
    assert list(finished) == [numbers[2], numbers[0], numbers[1]]
    for number in numbers[:2]:
        _check(base, finished[number], ids, _log_probs(base.model, ids))


def test_a_token_that_only_the_tokenizer_has_is_refused(base: BaseModel) -> None:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    larger = replace(base, tokenizer=tokenizer)
    ids = [len(base.tokenizer)]
    text = "yes<image>"
    for request in (
        GenerationRequest(prompt_token_ids=ids),
        GenerationRequest(text=text),
        GenerationRequest(messages=(("user", text),)),
    ):
        with pytest.raises(ModelError, match=f"the model has 0 to {ids[0] - 1}"):
            _score(larger, [request])
