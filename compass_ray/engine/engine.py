"""Generation for requests that want different adapters, in one batch that they join and leave at any token.

Key properties: a reply does not depend on its neighbours in the batch, up to rounding, and a sampled one only on its own
seed; a reply that has begun keeps the adapter version it began with, whatever is loaded meanwhile. Each step takes one
token of every reply under way and a stretch of the prompts that came in. Not a server: one thread calls it, no network.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compass_ray.engine.adapter_manager import AdapterManager, AdapterRefCounts
from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.fold_adapter import PreparedAdapter
from compass_ray.engine.kv_cache import KVCache, derive_max_model_len
from compass_ray.engine.model_runner import PROBE_TOKENS, ModelRunner
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta, TokenLogprob
from compass_ray.engine.sampler import SampledToken, SamplingParams, make_generator
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import encode_messages, encode_text
from compass_ray.models.errors import ModelError, TooLongError

_TOKEN_LENGTH_MARGIN = 4
"""Times the longest token's characters that a token of a prompt may stand for, since a tokenizer may leave some out."""


@dataclass(frozen=True)
class EngineConfig:
    """How much is decoded at once: rows, tokens of a row, prompt tokens a step, and GiB of keys and values."""

    max_num_seqs: int = 32
    max_model_len: int = 4096
    prefill_chunk_tokens: int = 512
    kv_cache_gib: float = 4.0


@dataclass(frozen=True)
class StepOutput:
    """What a step added to a reply; ``done`` is the whole of it, at its end."""

    request_id: int
    delta: OutputDelta
    final_output: GenerationOutput | None = None


class Engine:
    """A base model, its resident adapters, and generation over both."""

    def __init__(self, base: BaseModel, limits: EngineConfig | None = None) -> None:
        """Take over ``base`` until `close`.

        Raises:
            ModelError: its attention is not what is computed here, or not one row fits the key-value cache.
        """
        limits = limits or EngineConfig()
        self.base = base
        self.prompt_tokenizer = copy.deepcopy(base.tokenizer)
        self._max_characters_per_token = _TOKEN_LENGTH_MARGIN * max(map(len, base.tokenizer.get_vocab()))
        self.adapter_manager = AdapterManager(base)
        self.max_model_len = min(max(limits.max_model_len, PROBE_TOKENS), derive_max_model_len(base.model))
        cache = KVCache(base, rows=limits.max_num_seqs, context=self.max_model_len, gib=limits.kv_cache_gib)
        self.model_runner = ModelRunner(base, self.adapter_manager, cache, limits.prefill_chunk_tokens)
        self._waiting: deque[RequestState] = deque()
        self._adapter_refs = AdapterRefCounts(self.adapter_manager.free_slot)
        self._last_request_id = 0

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the resident adapters."""
        return self.adapter_manager.adapter_names

    @property
    def has_unfinished_requests(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting or self.model_runner.num_requests)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Make an adapter resident; of one of the same name, replies that have begun keep the old one.

        Raises:
            ModelError: the directory is damaged or was made for another base; what was loaded goes on.
        """
        self.install_adapter(name, self.adapter_manager.prepare(Path(folder)))

    def install_adapter(self, name: str, prepared: PreparedAdapter) -> None:
        """The second half of `load`, which takes no time; ``bank.prepare`` may run in another thread."""
        before = self.adapter_manager.get_slot(name) if name in self.adapter_names else None
        self.adapter_manager.install(name, prepared)
        if before is not None:
            self._adapter_refs.retire(before)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; replies that have begun keep it.

        Raises:
            ModelError: it is not loaded.
        """
        self._adapter_refs.retire(self.adapter_manager.unload(name))

    def add_request(self, order: GenerationRequest) -> int:
        """Let a request wait for its place, and give the ticket that its events bear.

        Raises:
            ModelError: an adapter that is not loaded, a prompt too long, or sampling values out of range.
        """
        row = self._make_request_state(order)
        self._adapter_refs.acquire(row.token_adapters)
        self._waiting.append(row)
        return row.request_id

    def abort_request(self, ticket: int) -> None:
        """Give a request's place to others; nothing more comes of it."""
        waiting = next((row for row in self._waiting if row.request_id == ticket), None)
        row = waiting or self.model_runner.remove_request(ticket)
        if waiting:
            self._waiting.remove(waiting)
        if row:
            self._adapter_refs.release(row.token_adapters)

    def step(self) -> list[StepOutput]:
        """One token of every reply under way, and the next stretch of the prompts."""
        while self._waiting and self.model_runner.num_free_slots:
            self.model_runner.add_request(self._waiting.popleft())
        return [self._make_step_output(row, chosen) for row, chosen in self.model_runner.execute_model()]

    def generate(self, orders: Sequence[GenerationRequest]) -> list[GenerationOutput]:
        """A reply to each request, in order, adapters mixed.

        Raises:
            ModelError: a request that cannot be followed; none is answered then.
        """
        tickets: list[int] = []
        try:
            for order in orders:
                tickets.append(self.add_request(order))
            done: dict[int, GenerationOutput] = {}
            while len(done) < len(tickets):
                done.update({event.request_id: event.final_output for event in self.step() if event.final_output})
        except BaseException:
            for ticket in tickets:
                self.abort_request(ticket)
            raise
        return [done[ticket] for ticket in tickets]

    def tokenize(self, order: GenerationRequest) -> list[int]:
        """Token ids that the request prefills. For one thread at a time, which need not be that of the other calls.

        Raises:
            ModelError: the chat template refuses its messages, or there are more of them than could ever fit.
        """
        characters = len(order.text or "") + sum(len(text) for _, text in order.messages)
        if characters > self.max_model_len * self._max_characters_per_token:
            raise TooLongError(
                f"the conversation has {characters} characters, more than {self.max_model_len} tokens hold; shorten it"
            )
        if order.prompt_token_ids is not None:
            return list(order.prompt_token_ids)
        if order.text is not None:
            return encode_text(self.prompt_tokenizer, order.text)
        messages = [{"role": role, "content": text} for role, text in order.messages]
        return encode_messages(self.prompt_tokenizer, messages, 1 << 30)

    def close(self) -> None:
        """Give the base back as it was, without adapters; what is under way is lost."""
        self._waiting.clear()
        self.model_runner.close()
        self.adapter_manager.close()

    def _make_request_state(self, order: GenerationRequest) -> RequestState:
        _check_sampling(order)
        prompt = self.tokenize(order)
        if not prompt:
            raise ModelError("the prompt is empty; give at least one token of text")
        if len(prompt) + order.max_tokens > self.max_model_len:
            raise TooLongError(
                f"the conversation has {len(prompt)} tokens and {order.max_tokens} were asked for, but the base model "
                f"takes {self.max_model_len} here; shorten one of them"
            )
        self._last_request_id += 1
        drawing = SamplingParams(make_generator(order.seed), order.temperature, order.top_p, order.logprobs)
        stops = [text for text in order.stop if text]
        return RequestState(
            self._last_request_id,
            prompt,
            order.adapter,
            self._resolve_adapters(order),
            order.max_tokens,
            drawing,
            self.base.tokenizer,
            stops,
        )

    def _resolve_adapters(self, order: GenerationRequest) -> TokenAdapters:
        first = self.adapter_manager.get_slot(order.adapter) if order.adapter else None
        if order.blend is None:
            return () if first is None else ((first, 1.0),)
        name, share = order.blend
        second = (self.adapter_manager.get_slot(name), share)
        return (second,) if first is None else ((first, 1.0 - share), second)

    def _make_step_output(self, row: RequestState, chosen: SampledToken) -> StepOutput:
        ended = chosen.token_id in self.model_runner.eos_token_ids
        scored = row.sampling_params.num_logprobs is not None and not ended
        piece = OutputDelta(row.append_token(chosen, ended=ended), (self._make_token_logprob(chosen),) if scored else ())
        row.output_logprobs.extend(piece.logprobs)
        if not row.is_finished:
            return StepOutput(row.request_id, piece)
        self.model_runner.remove_request(row.request_id)
        self._adapter_refs.release(row.token_adapters)
        return StepOutput(row.request_id, piece, _make_generation_output(row))

    def _make_token_logprob(self, chosen: SampledToken) -> TokenLogprob:
        def text(token: int) -> str:
            return str(self.base.tokenizer.decode([token]))

        return TokenLogprob(text(chosen.token_id), chosen.logprob, tuple((text(t), value) for t, value in chosen.top_logprobs))


def _check_sampling(order: GenerationRequest) -> None:
    if order.max_tokens < 1:
        raise ModelError(f"max_tokens is {order.max_tokens}; give 1 or more")
    if order.temperature < 0 or not 0 < order.top_p <= 1:
        raise ModelError(f"temperature is {order.temperature} and top_p {order.top_p}; give 0 or more, and above 0 up to 1")
    if order.blend and not 0 < order.blend[1] < 1:
        raise ModelError(f"the share of {order.blend[0]} is {order.blend[1]}; give one between 0 and 1")


def _make_generation_output(row: RequestState) -> GenerationOutput:
    return GenerationOutput(
        text=row.detokenizer.text,
        adapter=row.adapter,
        prompt_tokens=len(row.prompt_token_ids),
        completion_tokens=row.num_output_tokens,
        finish_reason="stop" if row.is_stopped else "length",
        mean_nll=-sum(row.sampled_logprobs) / len(row.sampled_logprobs) if row.sampled_logprobs else None,
        logprobs=tuple(row.output_logprobs),
    )
