"""What every engine of the service must do, as tests. A test module subclasses `EngineContract` and gives it an engine.

The oracle is transformers' own model, with PEFT's merge for an adapter. The fixtures of the module are ``contract_models`` (from
`make_contract_models`), ``engine`` (an open engine for it, shared by the module) and ``open_fresh``, which opens another one.
"""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compass_ray.adapters.peft_io import WEIGHTS_NAME
from compass_ray.config import AdapterConfig, RunConfig, parse_config
from compass_ray.engine.protocol import EngineStoppedError, GenerationEngine
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.chat_template import encode_prompt
from compass_ray.models.errors import ModelError, TooLongError
from tests.unit.random_adapters import merged, random_adapter
from tests.unit.tiny_models import LAYERS, make_model, make_tokenizer

SECONDS = 120.0
"""A timeout that only a defect reaches."""
MAX_NUM_SEQS = 8
MAX_MODEL_LEN = 192
PROMPTS = ("What is the capital of Kenya?", "Habari", "Which currency is used in Uganda? shilling or dollar", "0 1 2")
HIDDEN, LENGTH = 128, 24
"""Heads of width 32, the smallest that vLLM's attention on a CPU takes."""


@dataclass
class ContractModels:
    """A tiny base model on disk with adapters, and transformers' view of both."""

    base: BaseModel
    folder: Path
    """``base``, and one folder for each adapter."""
    end_token_ids: tuple[int, ...]
    adapters: tuple[str, ...] = ("sw@v0001", "yo@v0001", "ha@v0001")
    models: dict[str | None, Any] = field(default_factory=dict)

    def config(self) -> RunConfig:
        """The configuration of a run with this base model."""
        serve = {"max_num_seqs": MAX_NUM_SEQS, "max_tokens": 64, "max_prompt_tokens": MAX_MODEL_LEN - 64, "kv_cache_gib": 0.125}
        train = {"base_model": str(self.folder / "base"), "adapter": {"r": 8}}
        return parse_config({"languages": ["sw", "yo", "ha"], "train": train, "serve": serve})

    def adapter(self, name: str, **shape: Any) -> Path:
        """Write another adapter for the base model."""
        config = AdapterConfig(**({"r": 3, "alpha": 6, "target_modules": LAYERS} | shape))
        return random_adapter(self.base, self.folder / name, config, seed=len(name))

    def model(self, adapter: str | None) -> Any:
        """The base model, or PEFT's merge of an adapter into it."""
        if adapter not in self.models:
            self.models[adapter] = merged(self.base, self.folder / adapter) if adapter else self.base.model
        return self.models[adapter]

    @torch.inference_mode()
    def reply(self, request: GenerationRequest) -> list[int]:
        """Token ids of the greedy reply by transformers' own generation, with the end token if it ends by one."""
        ids = torch.tensor([encode_prompt(self.base.tokenizer, request.messages[0][1], 1000)])
        ends = list(self.end_token_ids)
        options = {"max_new_tokens": request.max_tokens, "do_sample": False, "eos_token_id": ends, "pad_token_id": 0}
        output = self.model(request.adapter).generate(ids, attention_mask=torch.ones_like(ids), **options)
        return [int(token) for token in output[0, ids.shape[1] :]]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a reply, without its end token."""
        kept = tokens[:-1] if tokens and tokens[-1] in self.end_token_ids else tokens
        return str(self.base.tokenizer.decode(kept, skip_special_tokens=True))

    @torch.inference_mode()
    def logprobs(self, request: GenerationRequest, tokens: Sequence[int]) -> torch.Tensor:
        """float32[n, vocabulary] log-probabilities at the positions of a reply, in one forward pass."""
        prompt = encode_prompt(self.base.tokenizer, request.messages[0][1], 1000)
        logits = self.model(request.adapter)(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits.float(), -1)

    def mean_nll(self, request: GenerationRequest, tokens: Sequence[int]) -> float:
        """Mean loss of a reply."""
        scores = self.logprobs(request, tokens)
        return -float(scores.gather(1, torch.tensor(tokens)[:, None]).mean())


def make_contract_models(folder: Path) -> ContractModels:
    """Write the base model and its adapters. The generation settings of the base name a token that ends some replies."""
    from transformers import AutoTokenizer

    make_tokenizer().save_pretrained(folder / "base")
    model = make_model("qwen2", len(make_tokenizer()), hidden=HIDDEN)
    model.config.save_pretrained(folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")  # of the model's type, as the engine loads it
    base = freeze(model, tokenizer, torch.device("cpu"), str(folder / "base"))
    models = ContractModels(base, folder, (tokenizer.eos_token_id,))
    reply = models.reply(plain(PROMPTS[1]))
    end = next(token for i, token in enumerate(reply) if 4 <= i < LENGTH - 2 and token not in reply[:i])
    models.end_token_ids = (tokenizer.eos_token_id, end)
    base.model.generation_config.eos_token_id = list(models.end_token_ids)
    base.model.save_pretrained(folder / "base")
    shapes: tuple[dict[str, Any], ...] = ({}, {"r": 7, "target_modules": ("q_proj", "down_proj")}, {"kind": "lora", "r": 2})
    for name, shape in zip(models.adapters, shapes, strict=True):
        models.adapter(name, **shape)
    return models


def plain(prompt: str, adapter: str | None = None, **changes: Any) -> GenerationRequest:
    return GenerationRequest((("user", prompt),), adapter, **({"max_tokens": LENGTH} | changes))


class Recorder(queue.SimpleQueue[OutputDelta | GenerationOutput | Exception]):
    """The outputs of one request."""

    def __init__(self) -> None:
        self.deltas: list[OutputDelta] = []

    def first(self) -> OutputDelta:
        """The next delta."""
        output = self.get(timeout=SECONDS)
        assert isinstance(output, OutputDelta), output
        self.deltas.append(output)
        return output

    def final(self) -> GenerationOutput:
        """Wait for the complete reply, and keep the deltas before it."""
        while isinstance(output := self.get(timeout=SECONDS), OutputDelta):
            self.deltas.append(output)
        if isinstance(output, Exception):
            raise output
        return output


def submit(engine: GenerationEngine, request: GenerationRequest) -> tuple[int, Recorder]:
    recorder = Recorder()
    return engine.submit(request, recorder.put).result(SECONDS), recorder


def ask(engine: GenerationEngine, requests: Sequence[GenerationRequest]) -> list[GenerationOutput]:
    """The replies to requests that run at once."""
    recorders = [submit(engine, request)[1] for request in requests]
    return [recorder.final() for recorder in recorders]


class EngineContract:
    """The contract of `compass_ray.engine.protocol.GenerationEngine`."""

    @pytest.fixture(autouse=True)
    def loaded(self, engine: GenerationEngine, contract_models: ContractModels) -> None:
        """Each test starts with the three adapters, and no others."""
        for name in set(engine.names) - set(contract_models.adapters):
            engine.unload(name)
        for name in contract_models.adapters:
            if name not in engine.names:
                engine.load(name, contract_models.folder / name)

    def test_greedy_replies_are_those_of_the_merged_models(
        self, engine: GenerationEngine, contract_models: ContractModels
    ) -> None:
        """More requests than run at once, of the base model and of every adapter."""
        requests = [plain(prompt, name) for prompt in PROMPTS for name in (None, *contract_models.adapters)]
        assert len(requests) > MAX_NUM_SEQS
        expected = [contract_models.reply(request) for request in requests]
        outputs = ask(engine, requests)
        assert [output.text for output in outputs] == [contract_models.text(tokens) for tokens in expected]
        assert len({output.text for output in outputs}) > len(PROMPTS)
        assert [output.adapter for output in outputs] == [request.adapter for request in requests]

    def test_losses_counts_and_reasons_are_those_of_the_tokens(
        self, engine: GenerationEngine, contract_models: ContractModels
    ) -> None:
        requests = [plain(prompt, name) for prompt in PROMPTS for name in (None, contract_models.adapters[0])]
        reasons = set()
        for request, output in zip(requests, ask(engine, requests), strict=True):
            tokens = contract_models.reply(request)
            ended = tokens[-1] in contract_models.end_token_ids
            reasons.add(output.finish_reason)
            assert output.finish_reason == ("stop" if ended else "length")
            assert output.completion_tokens == len(tokens) - ended
            assert output.prompt_tokens == len(encode_prompt(contract_models.base.tokenizer, request.messages[0][1], 1000))
            assert output.mean_nll == pytest.approx(contract_models.mean_nll(request, tokens), abs=1e-4)
        assert reasons == {"stop", "length"}

    def test_losses_and_log_probabilities_do_not_depend_on_the_temperature(
        self, engine: GenerationEngine, contract_models: ContractModels
    ) -> None:
        request = plain(PROMPTS[0], contract_models.adapters[0], temperature=1.5, seed=4, logprobs=3, max_tokens=8)
        _, recorder = submit(engine, request)
        output = recorder.final()
        tokens = [score.token_id for score in output.logprobs]
        expected = contract_models.logprobs(request, tokens)
        assert b"".join(score.raw_bytes or b"" for score in output.logprobs).decode("utf-8", "replace") == output.text
        assert [score for delta in recorder.deltas for score in delta.logprobs] == list(output.logprobs)
        for position, score in zip(expected, output.logprobs, strict=True):
            best = position.topk(3)
            assert score.logprob == pytest.approx(float(position[score.token_id]), abs=1e-4)
            assert [each.token_id for each in score.top_logprobs] == best.indices.tolist()
            assert [each.logprob for each in score.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)

    def test_deltas_joined_are_the_reply(self, engine: GenerationEngine, contract_models: ContractModels) -> None:
        recorders = [submit(engine, plain(prompt, name))[1] for prompt in PROMPTS for name in (None, *contract_models.adapters)]
        for recorder in recorders:
            output = recorder.final()
            assert "".join(delta.text for delta in recorder.deltas) == output.text
            assert recorder.empty()

    def test_a_reply_ends_before_a_stop_string(self, engine: GenerationEngine, contract_models: ContractModels) -> None:
        requests = [plain(prompt, contract_models.adapters[1]) for prompt in PROMPTS]
        texts = [contract_models.text(contract_models.reply(request)) for request in requests]
        full, request = max(zip(texts, requests, strict=True), key=lambda pair: len(pair[0]))
        stop = next(text for i in range(3, len(full)) if (text := full[i : i + 2]).isascii() and full.index(text) == i)
        _, recorder = submit(engine, replace(request, stop=("", stop)))
        output = recorder.final()
        assert output.text == full[: full.index(stop)] == "".join(delta.text for delta in recorder.deltas)
        assert output.finish_reason == "stop"

    @pytest.mark.parametrize("seed", [1, -1])
    def test_a_seed_gives_the_same_reply_beside_any_neighbours(
        self, engine: GenerationEngine, contract_models: ContractModels, seed: int
    ) -> None:
        name = contract_models.adapters[0]
        warm = [plain(PROMPTS[0], name, temperature=2.0, seed=each) for each in (seed, 2, seed)]
        [alone] = ask(engine, warm[:1])
        first, second, third, *_ = ask(engine, [*warm, *(plain(prompt, temperature=1.0, seed=9) for prompt in PROMPTS)])
        assert alone.text == first.text == third.text != second.text
        assert all(output.finish_reason in ("stop", "length") for output in ask(engine, [replace(warm[0], seed=None)] * 2))

    def test_a_cancelled_request_emits_nothing_more_and_others_continue(
        self, engine: GenerationEngine, contract_models: ContractModels
    ) -> None:
        long = replace(plain(PROMPTS[3], contract_models.adapters[0], max_tokens=60), stop=())
        request_id, cancelled = submit(engine, long)
        _, other = submit(engine, plain(PROMPTS[0]))
        cancelled.first()
        engine.cancel(request_id)
        engine.cancel(request_id)
        assert other.final().text == contract_models.text(contract_models.reply(plain(PROMPTS[0])))
        ask(engine, [plain(PROMPTS[0])])
        count = cancelled.qsize()
        ask(engine, [plain(PROMPTS[0])])
        assert cancelled.qsize() == count

    def test_a_running_request_keeps_the_version_it_started_with(
        self, engine: GenerationEngine, contract_models: ContractModels
    ) -> None:
        name = contract_models.adapters[0]
        request = plain(PROMPTS[2], name, max_tokens=60)
        _, old = submit(engine, request)
        old.first()
        contract_models.adapter("replacement", r=5, alpha=20)
        engine.load(name, contract_models.folder / "replacement")
        _, new = submit(engine, request)
        assert old.final().text == contract_models.text(contract_models.reply(request))
        expected = contract_models.reply(replace(request, adapter="replacement"))
        assert new.final().text == contract_models.text(expected) != old.final
        engine.unload(name)

    def test_an_unloaded_adapter_serves_its_requests_to_their_end(
        self, engine: GenerationEngine, contract_models: ContractModels
    ) -> None:
        name = contract_models.adapters[1]
        request = plain(PROMPTS[2], name, max_tokens=60)
        _, running = submit(engine, request)
        running.first()
        engine.unload(name)
        assert name not in engine.names
        with pytest.raises(ModelError, match=f"{name}.*not loaded"):
            submit(engine, request)
        with pytest.raises(ModelError, match=f"{name}.*not loaded"):
            engine.unload(name)
        assert running.final().text == contract_models.text(contract_models.reply(request))
        engine.load(name, contract_models.folder / name)
        [again] = ask(engine, [request])
        assert again.text == contract_models.text(contract_models.reply(request))

    def test_more_adapters_than_a_batch_takes_answer_correctly(
        self, engine: GenerationEngine, contract_models: ContractModels
    ) -> None:
        """The files of loaded adapters may vanish: nothing is read again."""
        extra = [f"extra@v{number:04}" for number in range(1, 10)]
        for number, name in enumerate(extra):
            contract_models.adapter(name, r=1 + number % 8, alpha=3 + number)
            engine.load(name, contract_models.folder / name)
        requests = [plain(PROMPTS[i % 4], name) for i, name in enumerate(extra)]
        expected = [contract_models.text(contract_models.reply(request)) for request in requests]
        for name in extra:
            shutil.rmtree(contract_models.folder / name)
        for _ in range(2):
            assert [output.text for output in ask(engine, requests)] == expected

    @pytest.mark.parametrize("kind", ["larger", "deeper", "truncated", "missing", "nan", "incomplete"])
    def test_an_unusable_adapter_is_refused_and_the_engine_lives(
        self, engine: GenerationEngine, contract_models: ContractModels, tmp_path: Path, kind: str
    ) -> None:
        name = contract_models.adapters[0]
        request = plain(PROMPTS[0], name)
        with pytest.raises(ModelError):
            engine.load(name, _unusable_adapter(contract_models, tmp_path / kind, kind))
        assert name in engine.names
        [output] = ask(engine, [request])
        assert output.text == contract_models.text(contract_models.reply(request))
        assert engine.is_healthy

    def test_an_invalid_request_is_refused_alone(self, engine: GenerationEngine) -> None:
        with pytest.raises(TooLongError, match=f"limited to {MAX_MODEL_LEN}"):
            submit(engine, plain(PROMPTS[0], max_tokens=MAX_MODEL_LEN))
        with pytest.raises(TooLongError, match="10000000 characters"):
            engine.tokenize(plain("a" * 10_000_000))
        for changes in ({"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"text": ""}, {"adapter": "xx@v0001"}):
            with pytest.raises(ModelError):
                submit(engine, replace(plain(PROMPTS[0]), **changes))  # type: ignore[arg-type]
        assert ask(engine, [plain(PROMPTS[0])])

    def test_tokens_are_those_of_the_chat_template(self, engine: GenerationEngine, contract_models: ContractModels) -> None:
        request = plain(PROMPTS[2])
        ids = engine.tokenize(request)
        assert ids == encode_prompt(contract_models.base.tokenizer, PROMPTS[2], 1000)
        [by_ids] = ask(engine, [replace(request, messages=(), prompt_token_ids=ids)])
        assert by_ids.prompt_tokens == len(ids)

    def test_work_is_counted(self, engine: GenerationEngine) -> None:
        steps, requests = engine.steps, engine.requests
        ask(engine, [plain(prompt) for prompt in PROMPTS])
        assert engine.requests == requests + len(PROMPTS)
        assert engine.steps > steps

    def test_stopping_fails_the_active_requests(
        self, open_fresh: Callable[[], GenerationEngine], contract_models: ContractModels
    ) -> None:
        engine = open_fresh()
        _, recorder = submit(engine, plain(PROMPTS[3], max_tokens=60))
        engine.stop()
        with pytest.raises(EngineStoppedError):
            recorder.final()
        assert not engine.is_healthy
        with pytest.raises(EngineStoppedError):
            submit(engine, plain(PROMPTS[0]))
        with pytest.raises(EngineStoppedError):
            engine.load(contract_models.adapters[0], contract_models.folder / contract_models.adapters[0])
        engine.cancel(1)
        engine.stop()


def _unusable_adapter(models: ContractModels, folder: Path, kind: str) -> Path:
    """An adapter directory that no engine may load."""
    if kind == "missing":
        return folder
    if kind in ("larger", "deeper"):
        shape = {"hidden": 2 * HIDDEN} if kind == "larger" else {"hidden": HIDDEN, "layers": 3}
        model = make_model("qwen2", len(models.base.tokenizer), **shape)
        other = freeze(model, models.base.tokenizer, torch.device("cpu"), "other")
        return random_adapter(other, folder, AdapterConfig(r=2, alpha=4), seed=0)
    shutil.copytree(models.folder / models.adapters[0], folder)
    if kind == "truncated":
        weights = (folder / WEIGHTS_NAME).read_bytes()
        (folder / WEIGHTS_NAME).write_bytes(weights[: len(weights) // 2])
        return folder
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS_NAME)
    first = next(iter(tensors))
    changed = {first: torch.full_like(tensors[first], torch.nan)} if kind == "nan" else {}
    rest = {name: tensor for name, tensor in tensors.items() if name != first}
    save_file(rest | changed, folder / WEIGHTS_NAME, {"format": "pt"})
    return folder
