"""The adapter server, a Serve deployment: one base model, every live adapter, and continuous batching.

A request waits only for its own adapter, never for a batch to fill or to end. The server polls the live pointers twice a second
and loads new versions without a restart. The work is done in `engine_host`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from ray import serve

from compass_ray import registry
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.engine.protocol import EngineStoppedError, GenerationEngine, OutputSink
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.heap_trim import trim_heap_forever
from compass_ray.models.errors import TooLongError
from compass_ray.registry import Catalogue
from compass_ray.serving import autoscaling
from compass_ray.serving.engine_host.adapter_sync import AdapterHost, HostState
from compass_ray.serving.engine_host.engine_loop import GenerationLoop
from compass_ray.serving.engine_host.stream_batcher import FinalListener, StreamListener, flush_interval
from compass_ray.serving.inference.backend import ContextLengthExceededError, InvalidRequestError

logger = logging.getLogger(__name__)

NAME = "adapters"
"""Name of the deployment."""
SYNC_INTERVAL_S = 0.5
_HEALTH_CHECK_PERIOD_S = 2.0
"""Serve replaces a replica after three failed checks. Until then other replicas answer its requests."""
_DRAIN_SECONDS = 10.0
"""Time, beyond the request timeout, for a stopping replica to finish its responses."""


def open_generation(config: RunConfig) -> GenerationEngine:
    """The engine of a configuration, ready for requests, without adapters. The only place that knows which engines exist."""
    if config.serve.engine == "vllm":
        from compass_ray.engine.vllm_backend.startup import open_vllm_engine

        return open_vllm_engine(config)
    return GenerationLoop(open_engine(config))


def open_engine(config: RunConfig) -> Any:
    """The engine of this package for a configuration, without adapters and without a thread. Imports torch lazily."""
    import torch

    from compass_ray.engine.engine import Engine, EngineConfig
    from compass_ray.models.base_model import load_base
    from compass_ray.models.token_memory import choose_kv_cache_gib

    torch.set_num_threads(config.resources.threads_per_worker)
    settings, base = config.serve, load_base(config.train)
    limits = EngineConfig(
        max_num_seqs=settings.max_num_seqs,
        max_model_len=settings.max_prompt_tokens + settings.max_tokens,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
        kv_cache_gib=choose_kv_cache_gib(settings, config.resources, base),
    )
    return Engine(base, limits)


class AdapterServer:
    """Deployment class; see `build_deployment`."""

    def __init__(self, run_uri: str, config: Mapping[str, Any]) -> None:
        """Load the base model and the live adapters, then start to poll the live pointers."""
        self.config = RunConfig.model_validate(config)
        self.run = RunDir(run_uri)
        self.generation = open_generation(self.config)
        self.tokenizer_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizing")
        self.loader_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading")
        self.host = AdapterHost(self.generation, self.run, clock=time.monotonic)
        self.reader = registry.CatalogueReader(self.run, self.config.languages)
        self.streams = 0
        self._sync()
        trim_heap_forever()
        self.sync_task = asyncio.create_task(self._sync_forever())

    async def answer(self, request: GenerationRequest) -> GenerationOutput:
        """The complete response to a request."""
        listener = FinalListener()
        async with self._submitted(request, listener.on_output):
            return await listener.output

    async def stream(self, request: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """The deltas of a response, then the complete response. Closing the stream cancels the request."""
        listener = StreamListener()
        self.streams += 1
        try:
            async with self._submitted(request, listener.on_output):
                async for output in listener.outputs(lambda: flush_interval(self.streams)):
                    yield output
        finally:
            self.streams -= 1

    @asynccontextmanager
    async def _submitted(self, request: GenerationRequest, sink: OutputSink) -> AsyncIterator[None]:
        await self._ensure_adapters(request)
        submission = self.generation.submit(await self._tokenize(request), sink)
        try:
            await self._await_submission(submission)
            yield
        finally:
            # Cancelling a finished request has no effect.
            submission.add_done_callback(lambda done: None if done.exception() else self.generation.cancel(done.result()))

    async def catalogue(self) -> Catalogue:
        """Read the live pointers, load new live versions, and return the catalogue of loaded versions."""
        return await asyncio.to_thread(self._sync)

    async def state(self) -> HostState:
        """The state as of the last sync: catalogue, load failures, and counts of steps and requests."""
        return self.host.state(self.generation.steps, self.generation.requests)

    def check_health(self) -> None:
        """Raise if the engine is unhealthy. Serve calls this and replaces a replica that fails it."""
        if not self.generation.is_healthy:
            raise RuntimeError("The engine is unhealthy and does not generate. See the replica's log.")

    async def _ensure_adapters(self, request: GenerationRequest) -> None:
        names = [name for name in (request.adapter, request.blend[0] if request.blend else None) if name]
        if not self.host.is_loaded(names):
            for name in names:
                await asyncio.get_running_loop().run_in_executor(self.loader_pool, self.host.ensure_loaded, name)

    async def _tokenize(self, request: GenerationRequest) -> GenerationRequest:
        """The request with token ids. Tokenizes in its own thread, so a long prompt delays no other response."""
        with _translate_errors():
            ids = await asyncio.get_running_loop().run_in_executor(self.tokenizer_pool, self.generation.tokenize, request)
        return replace(request, messages=(), text=None, prompt_token_ids=ids)

    async def _await_submission(self, submission: Any) -> None:
        with _translate_errors():
            await asyncio.shield(asyncio.wrap_future(submission))

    def _sync(self) -> Catalogue:
        return self.host.sync(self.reader.read())

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            try:
                await self.catalogue()
            except EngineStoppedError:  # the engine logs why; `check_health` fails from now on
                return
            except Exception:  # such as an unreachable store: the loaded adapters keep serving
                logger.exception("adapter server: cannot sync the live pointers, retrying in %g s", SYNC_INTERVAL_S)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate the engine's ValueError for an invalid request into an error of the service."""
    try:
        yield
    except ValueError as error:
        kind = ContextLengthExceededError if isinstance(error, TooLongError) else InvalidRequestError
        raise kind(str(error)) from None


def build_deployment(config: RunConfig) -> serve.Deployment:
    """The deployment, with the resources of a configuration."""
    deploy = serve.deployment(
        name=NAME,
        **autoscaling.scaling_options(config),
        max_ongoing_requests=config.serve.max_concurrent_requests,
        graceful_shutdown_timeout_s=config.serve.request_timeout_s + _DRAIN_SECONDS,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        **autoscaling.replica_options(config),
    )
    deployed: serve.Deployment = deploy(AdapterServer)
    return deployed
