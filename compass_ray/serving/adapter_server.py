"""The adapter server as a Serve deployment: one base model, every live adapter, one batch that orders join at any token.

Key property: no request waits for an adapter but its own, and none for a batch to be full or to end. Live
pointers are read twice a second and followed without a restart. The work is in `adapters`.
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
from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.models.errors import TooLongError
from compass_ray.registry import Catalogue
from compass_ray.serving import autoscaling
from compass_ray.serving.engine_host.adapter_sync import AdapterHost, HostState
from compass_ray.serving.engine_host.engine_loop import GenerationLoop, OutputSink
from compass_ray.serving.engine_host.stream_batcher import FinalListener, StreamListener, flush_interval
from compass_ray.serving.inference.backend import ContextLengthExceededError, InvalidRequestError

logger = logging.getLogger(__name__)

NAME = "adapters"
"""Of the deployment."""
SYNC_INTERVAL_S = 0.5
_DRAIN_SECONDS = 10.0
"""Beyond the time limit of a request, for a replica that is taken away to end what it answers."""


def open_engine(config: RunConfig) -> Any:
    """The engine of a configuration, without adapters; torch is imported only here."""
    import torch

    from compass_ray.engine.engine import Engine, EngineConfig
    from compass_ray.models.base_model import load_base

    torch.set_num_threads(config.resources.threads_per_worker)
    wanted = config.serve
    limits = EngineConfig(
        max_num_seqs=wanted.max_num_seqs,
        max_model_len=wanted.max_prompt_tokens + wanted.max_tokens,
        prefill_chunk_tokens=wanted.prefill_chunk_tokens,
        kv_cache_gib=wanted.kv_cache_gib,
    )
    return Engine(load_base(config.train), limits)


class AdapterServer:
    """Deployment class; see `deployment`."""

    def __init__(self, run_uri: str, config: Mapping[str, Any]) -> None:
        """Load the base and the live adapters, then keep following the pointers."""
        self.config = RunConfig.model_validate(config)
        self.run = RunDir(run_uri)
        self.generation = GenerationLoop(open_engine(self.config))
        self.tokenizer_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizing")
        self.loader_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading")
        self.host = AdapterHost(self.generation, self.run, clock=time.monotonic)
        self.reader = registry.CatalogueReader(self.run, self.config.languages)
        self.streams = 0
        self._sync()
        self.sync_task = asyncio.create_task(self._sync_forever())

    async def answer(self, order: GenerationRequest) -> GenerationOutput:
        """One reply, whole."""
        whole = FinalListener()
        async with self._submitted(order, whole.on_output):
            return await whole.output

    async def stream(self, order: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """One reply, piece by piece, and whole at the end; whoever stops listening frees its place."""
        pieces = StreamListener()
        self.streams += 1
        try:
            async with self._submitted(order, pieces.on_output):
                async for each in pieces.outputs(lambda: flush_interval(self.streams)):
                    yield each
        finally:
            self.streams -= 1

    @asynccontextmanager
    async def _submitted(self, order: GenerationRequest, hear: OutputSink) -> AsyncIterator[None]:
        await self._ensure_adapters(order)
        begun = self.generation.submit(await self._tokenize(order), hear)
        try:
            await self._await_submission(begun)
            yield
        finally:
            # Said of every order, since one that is done is not heard of again.
            begun.add_done_callback(lambda done: None if done.exception() else self.generation.cancel(done.result()))

    async def catalogue(self) -> Catalogue:
        """Read the pointers, load what became live, and say what can be answered with."""
        return await asyncio.to_thread(self._sync)

    async def state(self) -> HostState:
        """What can be answered with as of the last look, what cannot, and how full the batches were."""
        return self.host.state(self.generation.steps, self.generation.requests)

    def check_health(self) -> None:
        """Called by Serve, which puts another replica in the place of one that fails it."""
        if not self.generation.is_healthy:
            raise RuntimeError("the engine no longer generates; its log says why")

    async def _ensure_adapters(self, order: GenerationRequest) -> None:
        names = [name for name in (order.adapter, order.blend[0] if order.blend else None) if name]
        if not self.host.is_loaded(names):
            for name in names:
                await asyncio.get_running_loop().run_in_executor(self.loader_pool, self.host.ensure_loaded, name)

    async def _tokenize(self, order: GenerationRequest) -> GenerationRequest:
        """The order by its token ids, made where a long prompt holds up nobody's reply."""
        with _translate_errors():
            ids = await asyncio.get_running_loop().run_in_executor(self.tokenizer_pool, self.generation.engine.tokenize, order)
        return replace(order, messages=(), text=None, prompt_token_ids=ids)

    async def _await_submission(self, begun: Any) -> None:
        with _translate_errors():
            await asyncio.shield(asyncio.wrap_future(begun))

    def _sync(self) -> Catalogue:
        return self.host.sync(self.reader.read())

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            try:
                await self.catalogue()
            except Exception:  # a store that is out of reach for a moment: what is loaded goes on
                logger.exception("the live pointers could not be read; they are read again in half a second")


@contextmanager
def _translate_errors() -> Iterator[None]:
    """What the engine says of an order that it cannot follow, in the service's words."""
    try:
        yield
    except ValueError as error:
        kind = ContextLengthExceededError if isinstance(error, TooLongError) else InvalidRequestError
        raise kind(str(error)) from None


def build_deployment(config: RunConfig) -> serve.Deployment:
    """The deployment with the resources of a configuration."""
    deploy = serve.deployment(
        name=NAME,
        **autoscaling.scaling_options(config),
        max_ongoing_requests=config.serve.max_concurrent_requests,
        graceful_shutdown_timeout_s=config.serve.request_timeout_s + _DRAIN_SECONDS,
        ray_actor_options=autoscaling.actor_options(config.resources),
    )
    deployed: serve.Deployment = deploy(AdapterServer)
    return deployed
