"""Mixed batches against PEFT's merged model, alone and together, and refusals that leave what is served alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.config import AdapterConfig
from compass_ray.models.bank import AdapterBank
from compass_ray.models.base import BaseModel, freeze
from compass_ray.models.chat import encode_prompt
from compass_ray.models.engine import Engine, Request
from compass_ray.models.errors import ModelError
from compass_ray.models.padding import left_padded, positions_of
from compass_ray.models.peft_directory import WEIGHTS

from .adapters import merged, random_adapter
from .conftest import LAYERS, make_model, make_tokenizer

PROMPTS = ["What is the capital of Kenya?", "Habari", "Which currency is used in Uganda? shilling or dollar", "0 1 2"]
TOKENIZER = make_tokenizer()


def plain(prompt: str, adapter: str | None = None, **changes: Any) -> Request:
    return Request([{"role": "user", "content": prompt}], adapter, **({"max_tokens": 12} | changes))


def oracle(base: BaseModel, model: Any, prompt: str, tokens: int) -> str:
    """Greedy text of a merged model, without cache, padding or batch."""
    ids = encode_prompt(base.tokenizer, prompt, 1000)
    start = len(ids)
    with torch.inference_mode():
        for _ in range(tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == base.tokenizer.eos_token_id:
                ids.pop()
                break
    return str(base.tokenizer.decode(ids[start:], skip_special_tokens=True))


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["qwen2", "llama"]),
    st.lists(st.tuples(st.sampled_from(["dora", "lora"]), st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=3),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.integers(0, 1000),
)
def test_logits_of_a_mixed_batch_equal_those_of_merged_models(
    architecture: str, shapes: list[tuple[Any, int, int]], routes: list[int], seed: int
) -> None:
    base = freeze(make_model(architecture, len(TOKENIZER), seed=seed), TOKENIZER, torch.device("cpu"), "tiny")
    routes = [route % (len(shapes) + 1) for route in routes]
    models: list[Any] = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for i, (kind, r, alpha) in enumerate(shapes):
            modules = LAYERS if i % 2 else ("q_proj", "down_proj")
            config = AdapterConfig(kind=kind, r=r, alpha=alpha, target_modules=modules)
            folders.append(random_adapter(base, Path(scratch) / str(i), config, seed=seed + i))
            models.append(merged(base, folders[-1]))
        models.insert(0, make_model(architecture, len(TOKENIZER), seed=seed).eval())
        bank = AdapterBank(base)
        for i, folder in enumerate(folders):
            bank.load(str(i), folder)
    prompts = [encode_prompt(TOKENIZER, PROMPTS[i], 1000) for i in range(len(routes))]
    ids, mask = left_padded(prompts, TOKENIZER.pad_token_id, base.device)
    bank.route([0 if route == 0 else bank.slot(str(route - 1)) for route in routes])
    with torch.inference_mode():
        found = base.model(ids, attention_mask=mask, position_ids=positions_of(mask)).logits[:, -1]
        for row, (route, prompt) in enumerate(zip(routes, prompts, strict=True)):
            expected = models[route](torch.tensor([prompt])).logits[0, -1]
            assert (found[row] - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))


def test_rows_of_the_base_are_untouched_beside_adapters(base: BaseModel, tmp_path: Path) -> None:
    ids = torch.tensor([[5, 9, 31], [44, 7, 120]])
    with torch.inference_mode():
        expected = base.model(ids).logits
        bank = AdapterBank(base)
        bank.load("x", random_adapter(base, tmp_path, AdapterConfig(r=4, alpha=8, target_modules=LAYERS), seed=1))
        bank.route([0, 1])
        found = base.model(ids).logits
    assert torch.equal(found[0], expected[0])
    assert not torch.allclose(found[1], expected[1], atol=1e-2)


@pytest.fixture
def engine(make_base: Callable[..., BaseModel], architecture: str, tmp_path: Path) -> Engine:
    base = make_base(architecture)
    shapes: list[tuple[str, Any, int]] = [("sw@v0001", "dora", 3), ("yo@v0001", "dora", 7), ("ha@v0001", "lora", 2)]
    for name, kind, r in shapes:
        random_adapter(base, tmp_path / name, AdapterConfig(kind=kind, r=r, alpha=6, target_modules=LAYERS), seed=r)
    engine = Engine(base)
    for name, _, _ in shapes:
        engine.load(name, tmp_path / name)
    return engine


def test_greedy_replies_equal_the_merged_models_alone_and_mixed(engine: Engine, tmp_path: Path) -> None:
    base, names = engine.base, [None, *engine.names]
    requests = [plain(prompt, name) for prompt in PROMPTS for name in names]
    mixed = [done.text for done in engine.generate(requests)]
    alone = [engine.generate([request])[0].text for request in requests]
    engine.close()
    models = {name: base.model if name is None else merged(base, tmp_path / name) for name in names}
    expected = [oracle(base, models[r.adapter], str(r.messages[0]["content"]), r.max_tokens) for r in requests]
    assert mixed == alone == expected
    assert len(set(expected)) > len(PROMPTS)


def test_more_requests_than_a_batch_come_back_in_order(engine: Engine) -> None:
    requests = [plain(PROMPTS[i % 4], (None, *engine.names)[i % 3], max_tokens=1 + i % 5) for i in range(40)]
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
    warm = [plain(PROMPTS[0], engine.names[0], temperature=2.0, seed=seed) for seed in (1, 2, 1)]
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
    name = engine.names[0]
    before = engine.generate([plain(PROMPTS[0], name)])[0].text
    config = AdapterConfig(r=11, alpha=22, target_modules=LAYERS)
    engine.load(name, random_adapter_of(engine, tmp_path / "new", config))
    assert engine.generate([plain(PROMPTS[0], name)])[0].text != before
    engine.unload(name)
    with pytest.raises(ModelError, match=f"{name}.*not loaded"):
        engine.generate([plain(PROMPTS[0], name)])


def random_adapter_of(engine: Engine, folder: Path, config: AdapterConfig) -> Path:
    """An adapter for the engine's base, written from a copy of it without adapters."""
    model = make_model(engine.base.model.config.model_type, len(TOKENIZER))
    return random_adapter(freeze(model, TOKENIZER, torch.device("cpu"), "tiny"), folder, config, seed=5)


def test_refused_adapter_leaves_the_one_before_it(engine: Engine, make_base: Callable[..., BaseModel], tmp_path: Path) -> None:
    name = engine.names[0]
    before = engine.generate([plain(prompt, name) for prompt in PROMPTS])
    larger = random_adapter(make_base(hidden=64), tmp_path / "larger", AdapterConfig(r=2, alpha=4), seed=0)
    deeper = random_adapter(make_base(layers=3), tmp_path / "deeper", AdapterConfig(r=2, alpha=4), seed=0)
    broken = random_adapter(make_base(), tmp_path / "broken", AdapterConfig(r=2, alpha=4), seed=0)
    (broken / WEIGHTS).write_bytes(b"nothing")
    for folder, message in ((larger, "do not fit"), (deeper, "no layer"), (broken, "damaged"), (tmp_path / "none", "lacks")):
        with pytest.raises(ModelError, match=message):
            engine.load(name, folder)
    assert engine.generate([plain(prompt, name) for prompt in PROMPTS]) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_p": 0.0}, "top_p 0"),
        ({"max_tokens": 250}, "takes 256"),
    ],
)
def test_request_that_cannot_be_followed(base: BaseModel, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Engine(base).generate([plain(PROMPTS[0], **changes)])
