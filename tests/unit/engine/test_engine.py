"""Engine replies against transformers' own on PEFT's merged models: alone, mixed, joining and leaving at any token."""

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
from tests.unit.models.chat_styles import make_chat_tokenizer
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
    options = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": end, "pad_token_id": 0}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return str(base.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


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
    output = engine.generate([request])[0]
    assert output.prompt_tokens == len(encode_prompt(engine.base.tokenizer, PROMPTS[0], 1000))
    assert output.completion_tokens <= 3
    assert output.finish_reason == ("length" if output.completion_tokens == 3 else "stop")
    assert output.mean_nll is not None
    assert output.mean_nll > 0


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
    full = engine.generate([plain(PROMPTS[0])])[0].text
    stop = full[4:6]
    output = engine.generate([plain(PROMPTS[0], stop=(stop,))])[0]
    assert output.text == full[: full.index(stop)]
    assert output.finish_reason == "stop"


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


def test_rejected_adapter_leaves_the_loaded_one(engine: Engine, make_base: Callable[..., BaseModel], tmp_path: Path) -> None:
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
    """Run all requests to their end."""
    outputs: list[StepOutput] = []
    while engine.has_unfinished_requests:
        outputs += engine.step()
    return {output.request_id: output.final_output for output in outputs if output.final_output}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 14), st.integers(0, 6)), min_size=1, max_size=14),
    st.integers(1, 4),
    st.integers(3, 40),
)
def test_requests_that_join_and_leave_change_no_other_reply(
    base: BaseModel, tmp_path: Path, plan: list[tuple[int, int, int, int]], max_num_seqs: int, prefill: int
) -> None:
    """Each request arrives after some steps and some are aborted; every other reply equals the one generated alone."""
    for r in (1, 2, 3):
        if not (tmp_path / str(r)).exists():
            random_adapter(base, tmp_path / str(r), AdapterConfig(r=r, alpha=6, target_modules=LAYERS), seed=r)
    engine = Engine(base, EngineConfig(max_num_seqs=max_num_seqs, max_model_len=256, prefill_chunk_tokens=prefill))
    try:
        for r in (1, 2, 3):
            engine.load_adapter(str(r), tmp_path / str(r))
        requests = [plain(PROMPTS[p], str(a) if a else None, max_tokens=n) for p, a, n, _ in plan]
        expected = [engine.generate([request])[0] for request in requests]
        request_ids, outputs = [], []
        for request, (_, _, _, steps) in zip(requests, plan, strict=True):
            request_ids.append(engine.add_request(request))
            for _ in range(steps):
                outputs += engine.step()
        aborted = request_ids[::3]
        for request_id in aborted:
            engine.abort_request(request_id)
        done = {output.request_id: output.final_output for output in outputs if output.final_output} | drain(engine)
        for request_id, alone in zip(request_ids, expected, strict=True):
            if request_id in done:
                assert (done[request_id].text, done[request_id].finish_reason) == (alone.text, alone.finish_reason)
            else:
                assert request_id in aborted
    finally:
        engine.close()


def test_deltas_joined_are_the_reply(engine: Engine) -> None:
    request_ids = [engine.add_request(plain(prompt, name)) for prompt in PROMPTS for name in (None, *engine.adapter_names)]
    text: dict[int, str] = dict.fromkeys(request_ids, "")
    done = {}
    while engine.has_unfinished_requests:
        for output in engine.step():
            text[output.request_id] += output.delta.text
            if output.final_output:
                done[output.request_id] = output.final_output.text
    assert text == done
    assert any(done.values())


def test_a_running_request_keeps_its_adapter_version(engine: Engine, tmp_path: Path) -> None:
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
    unloaded = engine.add_request(request)
    engine.unload_adapter(name)
    assert drain(engine)[unloaded].text == done[new].text
    assert name not in engine.adapter_names


def test_two_adapters_blend_as_the_mean_of_their_merged_weights(engine: Engine, tmp_path: Path) -> None:
    first, second = engine.adapter_names[0], engine.adapter_names[1]
    [blended] = engine.generate([plain(PROMPTS[0], first, blend=(second, 0.3))])
    engine.close()
    model, other = merged(engine.base, tmp_path / first), merged(engine.base, tmp_path / second)
    with torch.no_grad():
        for weight, other_weight in zip(model.parameters(), other.parameters(), strict=True):
            weight.mul_(0.7).add_(other_weight, alpha=0.3)
    assert blended.text == oracle(engine.base, model, PROMPTS[0], 12)


def test_the_number_of_slots_is_limited_by_the_cache_size(make_base: Callable[..., BaseModel]) -> None:
    base = make_base()
    bytes_per_slot = 2 * 2 * 2 * 8 * 256 * 4  # layers, keys and values, heads, width, tokens, bytes
    engine = Engine(base, EngineConfig(max_num_seqs=8, max_model_len=256, kv_cache_gib=2.5 * bytes_per_slot / 2**30))
    assert engine.model_runner.kv_cache.num_slots == 2
    assert engine.model_runner.kv_cache.nbytes == 2 * bytes_per_slot
    assert len(engine.generate([plain(prompt) for prompt in PROMPTS])) == len(PROMPTS)
    engine.close()
    with pytest.raises(ModelError, match=r"serve\.kv_cache_gib"):
        Engine(base, EngineConfig(max_model_len=256, kv_cache_gib=0.5 * bytes_per_slot / 2**30))


def test_a_nan_reply_leaves_no_nan_in_the_cache(base: BaseModel, tmp_path: Path) -> None:
    """Non-finite keys lie where the next request is masked, and 0 times NaN is NaN."""
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
    request_ids = [engine.add_request(request) for request in poisoned]
    engine.step()
    for request_id in request_ids:
        engine.abort_request(request_id)
    assert not any(bool(stored.any()) for stored in engine.model_runner.kv_cache.keys), "free slots are not clear"
    assert [engine.generate([short])[0].text for _ in range(3)] == [before.text] * 3
    engine.close()


def test_a_prompt_that_is_certainly_too_long_is_rejected_before_tokenizing(base: BaseModel) -> None:
    engine = Engine(base, LIMITS)
    with pytest.raises(TooLongError, match="10000000 characters"):
        engine.generate([plain("a" * 10_000_000)])
    with pytest.raises(TooLongError, match="limited to 256"):
        engine.generate([plain("a b " * 300)])
    engine.close()


def test_log_probabilities_are_those_of_the_model(engine: Engine) -> None:
    [output] = engine.generate([plain(PROMPTS[0], max_tokens=6, temperature=1.5, seed=4, logprobs=3)])
    engine.close()
    ids = encode_prompt(engine.base.tokenizer, PROMPTS[0], 1000)
    assert len(output.logprobs) == output.completion_tokens
    assert b"".join(score.raw_bytes or b"" for score in output.logprobs).decode("utf-8", "replace") == output.text
    for score in output.logprobs:
        with torch.inference_mode():
            expected = engine.base.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        best = expected.topk(3)
        assert [each.logprob for each in score.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [each.token_id for each in score.top_logprobs] == best.indices.tolist()
        assert score.logprob == pytest.approx(float(expected[score.token_id]), abs=1e-4)
        ids.append(score.token_id)


def test_a_text_prompt_skips_the_chat_template(engine: Engine) -> None:
    [output] = engine.generate([GenerationRequest(text="The capital of", max_tokens=5)])
    ids = engine.base.tokenizer("The capital of")["input_ids"]
    assert output.prompt_tokens == len(ids)
    assert engine.generate([GenerationRequest(prompt_token_ids=ids, max_tokens=5)]) == [output]


def test_close_restores_the_base_model(make_base: Callable[..., BaseModel]) -> None:
    base, ids = make_base(), torch.arange(1, 9)[None]
    with torch.inference_mode():
        before = base.model(ids).logits
        engine = Engine(base, LIMITS)
        engine.generate([plain(PROMPTS[0])])
        engine.close()
        assert base.model.config._attn_implementation == "sdpa"
        assert torch.equal(base.model(ids).logits, before)


def test_unsupported_attention_is_rejected(make_base: Callable[..., BaseModel]) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    base = make_base()
    config = Gemma2Config(vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=8)
    soft = freeze(Gemma2ForCausalLM(config), TOKENIZER, torch.device("cpu"), "soft")
    with pytest.raises(ModelError, match="softcap"):
        Engine(soft, LIMITS)
    assert Engine(base, LIMITS).generate([plain(PROMPTS[0])])


@pytest.mark.parametrize(("architecture", "kind"), [("phi3", "longrope"), ("llama", "dynamic")])
def test_context_is_limited_to_where_rotary_embeddings_do_not_change_with_the_batch(
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
        ({"max_tokens": 250}, "limited to 256"),
        ({"blend": ("x", 0.5)}, "'x' is not loaded"),
        ({"text": ""}, "prompt is empty"),
    ],
)
def test_invalid_request_is_rejected(base: BaseModel, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Engine(base, EngineConfig(max_model_len=256)).generate([plain(PROMPTS[0], **changes)])


def test_a_reply_stops_at_the_templates_end_of_turn() -> None:
    tokenizer = make_chat_tokenizer("gemma")
    base = freeze(make_model("llama", len(tokenizer)), tokenizer, torch.device("cpu"), "tiny")
    end = tokenizer.convert_tokens_to_ids("</turn>")
    assert tokenizer.eos_token_id != end
    free = Engine(base)
    [expected] = free.generate([GenerationRequest(messages=(("user", "Habari?"),), max_tokens=8)])
    free.close()
    assert expected.finish_reason == "length"
    with torch.no_grad():  # the end of turn is always the most likely token, as its row is far longer than the others
        hidden = base.model.model(torch.tensor([encode_prompt(tokenizer, "Habari?", 100)])).last_hidden_state[0, -1]
        base.model.get_output_embeddings().weight[end] = 100 * hidden
    with_end = Engine(base)
    [reply] = with_end.generate([GenerationRequest(messages=(("user", "Habari?"),), max_tokens=8)])
    with_end.close()
    assert (reply.finish_reason, reply.completion_tokens, reply.text) == ("stop", 0, "")
