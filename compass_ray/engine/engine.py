"""Continuous batching: generate for requests with different adapters in one batch.

Requests join and leave the batch at any token. A reply does not depend on its neighbours in the batch, up to rounding. A
sampled reply depends only on its own seed. A running request keeps the adapter version it started with, even if a new
version is loaded. Each step decodes one token of every running request and prefills one chunk of waiting prompts. Not
thread-safe and no network: one thread calls the engine.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compass_ray.engine.adapter_manager import AdapterManager, AdapterRefCounts
from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.detokenizer import IncrementalDetokenizer
from compass_ray.engine.fold_adapter import PreparedAdapter
from compass_ray.engine.kv_cache import KVCache, derive_max_model_len
from compass_ray.engine.model_runner import PROBE_TOKENS, ModelRunner
from compass_ray.engine.reply_logprobs import ReplyLogprobs
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.engine.sampler import SampledToken, SamplingParams, make_generator
from compass_ray.engine.token_bytes import TokenBytes
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import encode_messages, encode_text
from compass_ray.models.errors import ModelError, TooLongError

_TOKEN_LENGTH_MARGIN = 4
"""Factor on the longest token's characters: a prompt token may cover more characters, because a tokenizer may drop some."""


@dataclass(frozen=True)
class EngineConfig:
    """Batch limits: requests, tokens of a request (prompt and reply), prompt tokens per step, GiB of key-value cache."""

    max_num_seqs: int = 32
    max_model_len: int = 4096
    prefill_chunk_tokens: int = 512
    kv_cache_gib: float = 4.0


@dataclass(frozen=True)
class StepOutput:
    """What one step added to a reply. ``final_output`` is the complete reply, set at its last token."""

    request_id: int
    delta: OutputDelta
    final_output: GenerationOutput | None = None


class Engine:
    """A base model, its resident adapters, and batched generation with both."""

    def __init__(self, base: BaseModel, config: EngineConfig | None = None) -> None:
        """Own ``base`` until `close`.

        Raises:
            ModelError: the base uses an unsupported attention, or the key-value cache is too small for one request.
        """
        config = config or EngineConfig()
        self.base = base
        self.prompt_tokenizer = copy.deepcopy(base.tokenizer)
        self._token_bytes = TokenBytes(base.tokenizer)
        self._max_characters_per_token = _TOKEN_LENGTH_MARGIN * max(map(len, base.tokenizer.get_vocab()))
        self.adapter_manager = AdapterManager(base)
        self.max_model_len = min(max(config.max_model_len, PROBE_TOKENS), derive_max_model_len(base.model))
        kv_cache = KVCache(base, max_num_seqs=config.max_num_seqs, max_model_len=self.max_model_len, gib=config.kv_cache_gib)
        self.model_runner = ModelRunner(base, self.adapter_manager, kv_cache, config.prefill_chunk_tokens)
        self._waiting: deque[RequestState] = deque()
        self._adapter_refs = AdapterRefCounts(self.adapter_manager.free_slot)
        self._last_request_id = 0

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the resident adapters."""
        return self.adapter_manager.adapter_names

    @property
    def has_unfinished_requests(self) -> bool:
        """Whether requests are waiting or running."""
        return bool(self._waiting or self.model_runner.num_requests)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter directory. Running requests keep an older adapter of the same name.

        Raises:
            ModelError: the directory is damaged or was made for another base model; the loaded adapters do not change.
        """
        self.install_adapter(name, self.adapter_manager.prepare(Path(folder)))

    def install_adapter(self, name: str, prepared: PreparedAdapter) -> None:
        """Install an adapter that `AdapterManager.prepare` read, possibly in another thread. Takes no time."""
        old_slot = self.adapter_manager.get_slot(name) if name in self.adapter_names else None
        self.adapter_manager.install(name, prepared)
        if old_slot is not None:
            self._adapter_refs.retire(old_slot)

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter. Running requests keep it.

        Raises:
            ModelError: it is not loaded.
        """
        self._adapter_refs.retire(self.adapter_manager.unload(name))

    def add_request(self, request: GenerationRequest) -> int:
        """Queue a request and return its id, which its step outputs carry.

        Raises:
            ModelError: the adapter is not loaded, the prompt is too long, or a sampling value is out of range.
        """
        state = self._make_request_state(request)
        self._adapter_refs.acquire(state.token_adapters)
        self._waiting.append(state)
        return state.request_id

    def abort_request(self, request_id: int) -> None:
        """Remove a waiting or running request; it has no further output."""
        waiting = next((request for request in self._waiting if request.request_id == request_id), None)
        request = waiting or self.model_runner.remove_request(request_id)
        if waiting:
            self._waiting.remove(waiting)
        if request:
            self._adapter_refs.release(request.token_adapters)

    def step(self) -> list[StepOutput]:
        """Decode one token of every running request and prefill the next chunk of prompts."""
        while self._waiting and self.model_runner.num_free_slots:
            self.model_runner.add_request(self._waiting.popleft())
        return [self._make_step_output(request, sampled) for request, sampled in self.model_runner.execute_model()]

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationOutput]:
        """Return one reply for each request, in order. Adapters may differ.

        Raises:
            ModelError: one request is invalid; then no request is answered.
        """
        request_ids: list[int] = []
        try:
            for request in requests:
                request_ids.append(self.add_request(request))
            outputs: dict[int, GenerationOutput] = {}
            while len(outputs) < len(request_ids):
                outputs.update({output.request_id: output.final_output for output in self.step() if output.final_output})
        except BaseException:
            for request_id in request_ids:
                self.abort_request(request_id)
            raise
        return [outputs[request_id] for request_id in request_ids]

    def tokenize(self, request: GenerationRequest) -> list[int]:
        """Return the prompt token ids of a request. One thread at a time may call it; it may differ from the engine's thread.

        Raises:
            ModelError: the chat template rejects the messages, or the prompt is certainly too long.
        """
        characters = len(request.text or "") + sum(len(text) for _, text in request.messages)
        if characters > self.max_model_len * self._max_characters_per_token:
            raise TooLongError(
                f"the conversation has {characters} characters, more than fit into {self.max_model_len} tokens; shorten it"
            )
        if request.prompt_token_ids is not None:
            return list(request.prompt_token_ids)
        if request.text is not None:
            return encode_text(self.prompt_tokenizer, request.text)
        messages = [{"role": role, "content": text} for role, text in request.messages]
        return encode_messages(self.prompt_tokenizer, messages, 1 << 30)

    def close(self) -> None:
        """Restore the base model without adapters. Waiting and running requests are lost."""
        self._waiting.clear()
        self.model_runner.close()
        self.adapter_manager.close()

    def _make_request_state(self, request: GenerationRequest) -> RequestState:
        _check_sampling(request)
        prompt = self.tokenize(request)
        if not prompt:
            raise ModelError("the prompt is empty; send at least one token of text")
        if len(prompt) + request.max_tokens > self.max_model_len:
            raise TooLongError(
                f"the conversation has {len(prompt)} tokens and max_tokens is {request.max_tokens}, but the context is limited "
                f"to {self.max_model_len} tokens; shorten the conversation or lower max_tokens"
            )
        self._last_request_id += 1
        sampling_params = SamplingParams(make_generator(request.seed), request.temperature, request.top_p, request.logprobs)
        stop_strings, continues_text = [text for text in request.stop if text], not request.messages
        return RequestState(
            self._last_request_id,
            prompt,
            request.adapter,
            self._resolve_adapters(request),
            request.max_tokens,
            sampling_params,
            IncrementalDetokenizer(self.base.tokenizer, stop_strings, continues_text=continues_text),
            None if request.logprobs is None else ReplyLogprobs(self._token_bytes, continues_text=continues_text),
        )

    def _resolve_adapters(self, request: GenerationRequest) -> TokenAdapters:
        first = self.adapter_manager.get_slot(request.adapter) if request.adapter else None
        if request.blend is None:
            return () if first is None else ((first, 1.0),)
        name, share = request.blend
        second = (self.adapter_manager.get_slot(name), share)
        return (second,) if first is None else ((first, 1.0 - share), second)

    def _make_step_output(self, request: RequestState, sampled: SampledToken) -> StepOutput:
        is_eos = sampled.token_id in self.model_runner.eos_token_ids
        delta = request.append_token(sampled, is_eos=is_eos)
        if not request.is_finished:
            return StepOutput(request.request_id, delta)
        self.model_runner.remove_request(request.request_id)
        self._adapter_refs.release(request.token_adapters)
        return StepOutput(request.request_id, delta, _make_generation_output(request))


def _check_sampling(request: GenerationRequest) -> None:
    if request.max_tokens < 1:
        raise ModelError(f"max_tokens is {request.max_tokens}; it must be at least 1")
    if request.temperature < 0 or not 0 < request.top_p <= 1:
        raise ModelError(f"temperature is {request.temperature} and top_p {request.top_p}; expected 0 or more, and (0, 1]")
    if request.blend and not 0 < request.blend[1] < 1:
        raise ModelError(f"the blend weight of {request.blend[0]} is {request.blend[1]}; it must be between 0 and 1")


def _make_generation_output(request: RequestState) -> GenerationOutput:
    return GenerationOutput(
        text=request.detokenizer.text,
        adapter=request.adapter,
        prompt_tokens=len(request.prompt_token_ids),
        completion_tokens=request.num_output_tokens,
        finish_reason="stop" if request.is_stopped else "length",
        mean_nll=-sum(request.sampled_logprobs) / len(request.sampled_logprobs) if request.sampled_logprobs else None,
        logprobs=request.logprobs.released if request.logprobs else (),
    )
