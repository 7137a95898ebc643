"""Replies against transformers' own on PEFT's merged models: alone, mixed, joining and leaving at any token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compass_ray.adapters.peft_io import WEIGHTS_NAME
from compass_ray.config import AdapterConfig
from compass_ray.engine.engine import Engine, EngineConfig, StepOutput
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.chat_template import encode_prompt
from compass_ray.models.errors import ModelError, TooLongError
from tests.unit.random_adapters import merged, random_adapter
from tests.unit.tiny_models import LAYERS, make_model, make_tokenizer

LIMITS = EngineConfig(max_num_seqs=8, max_model_len=256, prefill_chunk_tokens=24)
PROMPTS = ["What is the capital of Kenya?", "Habari", "Which currency is used in Uganda? shilling or dollar", "0 1 2"]
TOKENIZER = make_tokenizer()


def plain(prompt: str, adapter: str | None = None, **changes: Any) -> GenerationRequest:
    return GenerationRequest((("user", prompt),), adapter, **({"max_tokens": 12} | changes))


def oracle(base: BaseModel, model: Any, prompt: str, tokens: int) -> str:
    """Greedy text of a merged model by transformers' own generation, one prompt at a time."""
    ids = torch.tensor([encode_prompt(base.tokenizer, prompt, 1000)])
    end = base.tokenizer.eos_token_id
    asked = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": end, "pad_token_id": 0}
    found = model.generate(ids, attention_mask=torch.ones_like(ids), **asked)
    return str(base.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))


@pytest.fixture(params=["qwen2", "llama", "phi3"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def layers_of(base: BaseModel) -> tuple[str, ...]:
    fused = base.model.config.model_type == "phi3"
    return ("qkv_proj", "o_proj", "gate_up_proj", "down_proj") if fused else LAYERS


@pytest.fixture
def engine(make_base: Callable[..., BaseModel], architecture: str, tmp_path: Path) -> Engine:
    base = make_base(architecture)
    shapes: list[tuple[str, Any, int]] = [("sw@v0001", "dora", 3), ("yo@v0001", "dora", 7), ("ha@v0001", "lora", 2)]
    for name, kind, r in shapes:
        random_adapter(base, tmp_path / name, AdapterConfig(kind=kind, r=r, alpha=6, target_modules=layers_of(base)), seed=r)
    engine = Engine(base, LIMITS)
    for name, _, _ in shapes:
        engine.load_adapter(name, tmp_path / name)
    return engine


def test_greedy_replies_equal_the_merged_models_alone_and_mixed(engine: Engine, tmp_path: Path) -> None:
    base, names = engine.base, [None, *engine.adapter_names]
    requests = [plain(prompt, name) for prompt in PROMPTS for name in names]
    mixed = [done.text for done in engine.generate(requests)]
    alone = [engine.generate([request])[0].text for request in requests]
    engine.close()
    models = {name: base.model if name is None else merged(base, tmp_path / name) for name in names}
    expected = [oracle(base, models[r.adapter], r.messages[0][1], r.max_tokens) for r in requests]
    assert mixed == alone == expected
    assert len(set(expected)) > len(PROMPTS)


def test_more_requests_than_a_batch_come_back_in_order(engine: Engine) -> None:
    requests = [plain(PROMPTS[i % 4], (None, *engine.adapter_names)[i % 3], max_tokens=1 + i % 5) for i in range(40)]
    together = [done.text for done in engine.generate(requests)]
    assert together == [engine.generate([request])[0].text for request in requests]
    assert engine.generate([]) == []


def test_counts_reason_and_mean_loss(engine: Engine) -> None:
    request = plain(PROMPTS[0], max_tokens=3)
    done = engine.generate([request])[0]
    assert done.prompt_tokens == len(encode_prompt(engine.base.tokenizer, PROMPTS[0], 1000))
    assert done.completion_tokens <= 3
    assert done.finish_reason == ("length" if done.completion_tokens == 3 else "stop")
    assert done.mean_nll is not None
    assert done.mean_nll > 0


def test_sampling_depends_on_the_seed_and_not_on_the_neighbours(engine: Engine) -> None:
    warm = [plain(PROMPTS[0], engine.adapter_names[0], temperature=2.0, seed=seed) for seed in (1, 2, 1)]
    first, second, third = (done.text for done in engine.generate(warm))
    assert first == third
    assert first != second
    assert engine.generate(warm[:1])[0].text == first


def test_tiny_nucleus_is_greedy(engine: Engine) -> None:
    greedy, nucleus = engine.generate([plain(PROMPTS[1]), plain(PROMPTS[1], temperature=5.0, top_p=1e-6, seed=3)])
    assert nucleus.text == greedy.text


def test_stop_text_ends_the_reply_before_it(engine: Engine) -> None:
    whole = engine.generate([plain(PROMPTS[0])])[0].text
    stop = whole[4:6]
    done = engine.generate([plain(PROMPTS[0], stop=(stop,))])[0]
    assert done.text == whole[: whole.index(stop)]
    assert done.finish_reason == "stop"


def test_replaced_adapter_answers_differently_and_unloaded_one_is_unknown(engine: Engine, tmp_path: Path) -> None:
    name = engine.adapter_names[0]
    before = engine.generate([plain(PROMPTS[0], name)])[0].text
    config = AdapterConfig(r=11, alpha=22, target_modules=layers_of(engine.base))
    engine.load_adapter(name, random_adapter_of(engine, tmp_path / "new", config))
    assert engine.generate([plain(PROMPTS[0], name)])[0].text != before
    engine.unload_adapter(name)
    with pytest.raises(ModelError, match=f"{name}.*not loaded"):
        engine.generate([plain(PROMPTS[0], name)])


def random_adapter_of(engine: Engine, folder: Path, config: AdapterConfig) -> Path:
    """An adapter for the engine's base, written from a copy of it without adapters."""
    model = make_model(engine.base.model.config.model_type, len(TOKENIZER))
    return random_adapter(freeze(model, TOKENIZER, torch.device("cpu"), "tiny"), folder, config, seed=5)


def test_refused_adapter_leaves_the_one_before_it(engine: Engine, make_base: Callable[..., BaseModel], tmp_path: Path) -> None:
    name = engine.adapter_names[0]
    before = engine.generate([plain(prompt, name) for prompt in PROMPTS])
    larger = random_adapter(make_base(hidden=64), tmp_path / "larger", AdapterConfig(r=2, alpha=4), seed=0)
    deeper = random_adapter(make_base(layers=3), tmp_path / "deeper", AdapterConfig(r=2, alpha=4), seed=0)
    broken = random_adapter(make_base(), tmp_path / "broken", AdapterConfig(r=2, alpha=4), seed=0)
    (broken / WEIGHTS_NAME).write_bytes(b"nothing")
    for folder, message in ((larger, "do not fit"), (deeper, "no layer"), (broken, "damaged"), (tmp_path / "none", "lacks")):
        with pytest.raises(ModelError, match=message):
            engine.load_adapter(name, folder)
    assert engine.generate([plain(prompt, name) for prompt in PROMPTS]) == before


def drain(engine: Engine) -> dict[int, GenerationOutput]:
    """Whatever is under way, to its end."""
    events: list[StepOutput] = []
    while engine.has_unfinished_requests:
        events += engine.step()
    return {event.request_id: event.final_output for event in events if event.final_output}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 14), st.integers(0, 6)), min_size=1, max_size=14),
    st.integers(1, 4),
    st.integers(3, 40),
)
def test_whoever_joins_and_leaves_changes_no_other_reply(
    base: BaseModel, tmp_path: Path, plan: list[tuple[int, int, int, int]], rows: int, prefill: int
) -> None:
    """Each request comes after some steps and some are given up; what is left says what it says alone."""
    for r in (1, 2, 3):
        if not (tmp_path / str(r)).exists():
            random_adapter(base, tmp_path / str(r), AdapterConfig(r=r, alpha=6, target_modules=LAYERS), seed=r)
    engine = Engine(base, EngineConfig(max_num_seqs=rows, max_model_len=256, prefill_chunk_tokens=prefill))
    try:
        for r in (1, 2, 3):
            engine.load_adapter(str(r), tmp_path / str(r))
        asked = [plain(PROMPTS[p], str(a) if a else None, max_tokens=n) for p, a, n, _ in plan]
        expected = [engine.generate([request])[0] for request in asked]
        tickets, events = [], []
        for request, (_, _, _, steps) in zip(asked, plan, strict=True):
            tickets.append(engine.add_request(request))
            for _ in range(steps):
                events += engine.step()
        given_up = tickets[::3]
        for ticket in given_up:
            engine.abort_request(ticket)
        done = {event.ticket: event.done for event in events if event.done} | drain(engine)
        for ticket, alone in zip(tickets, expected, strict=True):
            if ticket in done:
                assert (done[ticket].text, done[ticket].finish_reason) == (alone.text, alone.finish_reason)
            else:
                assert ticket in given_up
    finally:
        engine.close()


def test_pieces_put_together_are_the_reply(engine: Engine) -> None:
    tickets = [engine.add_request(plain(prompt, name)) for prompt in PROMPTS for name in (None, *engine.adapter_names)]
    text: dict[int, str] = dict.fromkeys(tickets, "")
    done = {}
    while engine.has_unfinished_requests:
        for event in engine.step():
            text[event.request_id] += event.delta.text
            if event.final_output:
                done[event.request_id] = event.final_output.text
    assert text == done
    assert any(done.values())


def test_a_reply_that_has_begun_keeps_the_version_it_began_with(engine: Engine, tmp_path: Path) -> None:
    name, request = engine.adapter_names[0], plain(PROMPTS[0], engine.adapter_names[0])
    before = engine.generate([request])[0]
    old = engine.add_request(request)
    engine.step()
    config = AdapterConfig(r=11, alpha=22, target_modules=layers_of(engine.base))
    engine.load_adapter(name, random_adapter_of(engine, tmp_path / "new", config))
    new = engine.add_request(request)
    done = drain(engine)
    assert (done[old].text, done[old].mean_nll) == (before.text, pytest.approx(before.mean_nll, abs=1e-4))
    assert done[new].text != before.text
    assert engine.generate([request])[0].text == done[new].text
    gone = engine.add_request(request)
    engine.unload_adapter(name)
    assert drain(engine)[gone].text == done[new].text
    assert name not in engine.adapter_names


def test_two_adapters_blend_as_the_mean_of_their_merged_weights(engine: Engine, tmp_path: Path) -> None:
    first, second = engine.adapter_names[0], engine.adapter_names[1]
    [blended] = engine.generate([plain(PROMPTS[0], first, blend=(second, 0.3))])
    engine.close()
    model, other = merged(engine.base, tmp_path / first), merged(engine.base, tmp_path / second)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            mine.mul_(0.7).add_(theirs, alpha=0.3)
    assert blended.text == oracle(engine.base, model, PROMPTS[0], 12)


def test_a_request_alone_takes_no_more_rows_than_fit_the_cache(make_base: Callable[..., BaseModel]) -> None:
    base = make_base()
    one = 2 * 2 * 2 * 8 * 256 * 4  # layers, keys and values, heads, width, tokens, bytes
    engine = Engine(base, EngineConfig(max_num_seqs=8, max_model_len=256, kv_cache_gib=2.5 * one / 2**30))
    assert engine.model_runner.kv_cache.num_slots == 2
    assert engine.model_runner.kv_cache.nbytes == 2 * one
    assert len(engine.generate([plain(prompt) for prompt in PROMPTS])) == len(PROMPTS)
    engine.close()
    with pytest.raises(ModelError, match=r"serve\.kv_cache_gib"):
        Engine(base, EngineConfig(max_model_len=256, kv_cache_gib=0.5 * one / 2**30))


def test_a_reply_of_no_numbers_leaves_nothing_behind(base: BaseModel, tmp_path: Path) -> None:
    """Keys that are not finite lie where the next row is masked, and 0 times NaN is NaN."""
    random_adapter(base, tmp_path / "x", AdapterConfig(kind="lora", r=2, alpha=4, target_modules=LAYERS), seed=1)
    engine = Engine(base, EngineConfig(max_num_seqs=3, max_model_len=256, prefill_chunk_tokens=9))
    engine.load_adapter("x", tmp_path / "x")
    long, short = plain(" ".join(PROMPTS), max_tokens=20), plain("0 1", max_tokens=8)
    before = engine.generate([short])[0]
    for layer in engine.adapter_manager._layers.values():
        for weights in layer.adapters.values():
            weights.b.fill_(float("inf"))
    poisoned = [replace(long, adapter="x"), replace(short, adapter="x", max_tokens=3)]
    engine.generate([*poisoned, short])
    tickets = [engine.add_request(order) for order in poisoned]
    engine.step()
    for ticket in tickets:
        engine.abort_request(ticket)
    assert not any(bool(stored.any()) for stored in engine.model_runner.kv_cache.keys), "places that are free are clear"
    assert [engine.generate([short])[0].text for _ in range(3)] == [before.text] * 3
    engine.close()


def test_a_prompt_that_could_never_fit_is_refused_before_it_is_read(base: BaseModel) -> None:
    engine = Engine(base, LIMITS)
    with pytest.raises(TooLongError, match="10000000 characters"):
        engine.generate([plain("a" * 10_000_000)])
    with pytest.raises(TooLongError, match="takes 256"):
        engine.generate([plain("a b " * 300)])
    engine.close()


def test_log_probabilities_are_those_of_the_model(engine: Engine) -> None:
    [done] = engine.generate([plain(PROMPTS[0], max_tokens=6, temperature=1.5, seed=4, logprobs=3)])
    engine.close()
    ids = encode_prompt(engine.base.tokenizer, PROMPTS[0], 1000)
    tokens = [score.token for score in done.logprobs]
    assert len(tokens) == done.completion_tokens
    vocabulary = {engine.base.tokenizer.decode([i]): i for i in reversed(range(len(engine.base.tokenizer)))}
    for score in done.logprobs:
        with torch.inference_mode():
            expected = engine.base.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        best = expected.topk(3)
        assert [value for _, value in score.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        if "\ufffd" in score.token:  # a part of a character: several tokens read the same
            return
        assert score.logprob == pytest.approx(float(expected[vocabulary[score.token]]), abs=1e-4)
        ids.append(vocabulary[score.token])


def test_a_text_is_continued_as_it_stands(engine: Engine) -> None:
    [done] = engine.generate([GenerationRequest(text="The capital of", max_tokens=5)])
    ids = engine.base.tokenizer("The capital of")["input_ids"]
    assert done.prompt_tokens == len(ids)
    assert engine.generate([GenerationRequest(prompt_token_ids=ids, max_tokens=5)]) == [done]


def test_the_base_computes_as_before_once_the_engine_is_closed(make_base: Callable[..., BaseModel]) -> None:
    base, ids = make_base(), torch.arange(1, 9)[None]
    with torch.inference_mode():
        before = base.model(ids).logits
        engine = Engine(base, LIMITS)
        engine.generate([plain(PROMPTS[0])])
        engine.close()
        assert base.model.config._attn_implementation == "sdpa"
        assert torch.equal(base.model(ids).logits, before)


def test_attention_that_is_not_computed_here_is_refused(make_base: Callable[..., BaseModel]) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    base = make_base()
    config = Gemma2Config(vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=8)
    soft = freeze(Gemma2ForCausalLM(config), TOKENIZER, torch.device("cpu"), "soft")
    with pytest.raises(ModelError, match="softcap"):
        Engine(soft, LIMITS)
    assert Engine(base, LIMITS).generate([plain(PROMPTS[0])])


@pytest.mark.parametrize(("architecture", "kind"), [("phi3", "longrope"), ("llama", "dynamic")])
def test_rows_stay_below_where_rotary_embeddings_change_with_the_batch(
    make_base: Callable[..., BaseModel], architecture: str, kind: str
) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    base = make_base(architecture, rope_parameters=rope, original_max_position_embeddings=64)
    assert Engine(base, LIMITS).max_model_len == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_p": 0.0}, "top_p 0"),
        ({"max_tokens": 250}, "takes 256"),
        ({"blend": ("x", 0.5)}, "'x' is not loaded"),
        ({"text": ""}, "prompt is empty"),
    ],
)
def test_request_that_cannot_be_followed(base: BaseModel, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Engine(base, EngineConfig(max_model_len=256)).generate([plain(PROMPTS[0], **changes)])
