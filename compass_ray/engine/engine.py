"""Continuous batching: generate for requests with different adapters in one batch.

Requests join and leave the batch at any token. A reply does not depend on its neighbours in the batch, up to rounding. A
sampled reply depends only on its own seed. A running request keeps the adapter version it started with, even if a new
version is loaded. Each step decodes one token of every running request and prefills one chunk of waiting prompts. Not
thread-safe and no network: one thread calls the engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compass_ray.engine.adapter_manager import AdapterManager, AdapterRefCounts
from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.fold_adapter import PreparedAdapter
from compass_ray.engine.input_processor import InputProcessor
from compass_ray.engine.kv_cache import KVCache, derive_max_model_len
from compass_ray.engine.model_runner import PROBE_TOKENS, ModelRunner
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.engine.sampler import SampledToken
from compass_ray.models.base_model import BaseModel, count_embeddings


@dataclass(frozen=True)
class EngineConfig:
    """Batch limits: requests, tokens of a request (prompt and reply), prompt tokens per step, GiB of key-value cache.

    ``pack_weights`` moves the weights of linear layers on a CPU into a faster layout until the engine closes.
    """

    max_num_seqs: int = 32
    max_model_len: int = 4096
    prefill_chunk_tokens: int = 512
    kv_cache_gib: float = 4.0
    pack_weights: bool = True


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
        self.adapter_manager = AdapterManager(base)
        self.max_model_len = min(max(config.max_model_len, PROBE_TOKENS), derive_max_model_len(base.model))
        self._input_processor = InputProcessor(base.tokenizer, self.max_model_len, count_embeddings(base))
        kv_cache = KVCache(base, max_num_seqs=config.max_num_seqs, max_model_len=self.max_model_len, gib=config.kv_cache_gib)
        self.model_runner = ModelRunner(
            base, self.adapter_manager, kv_cache, config.prefill_chunk_tokens, pack_weights=config.pack_weights
        )
        self._waiting: deque[RequestState] = deque()
        self._adapter_refs = AdapterRefCounts(self.adapter_manager.free_slot)

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
        state = self._input_processor.make_state(request, self._resolve_adapters(request))
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
        return self._input_processor.tokenize(request)

    def close(self) -> None:
        """Restore the base model without adapters. Waiting and running requests are lost."""
        self._waiting.clear()
        self.model_runner.close()
        self.adapter_manager.close()

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
        return StepOutput(request.request_id, delta, request.make_output())
