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

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.models.errors import TooLongError
from compass_ray.models.orders import Answer, Order, Piece
from compass_ray.serving import registry, scaling
from compass_ray.serving.adapters.generating import GenerationLoop, Sink
from compass_ray.serving.adapters.hearing import Pieces, Whole, pause
from compass_ray.serving.adapters.hosting import AdapterHost, HostState
from compass_ray.serving.answering.backend import BadOrderError, TooLongOrderError
from compass_ray.serving.registry import Catalogue

logger = logging.getLogger(__name__)

NAME = "adapters"
"""Of the deployment."""
FOLLOW_SECONDS = 0.5
_DRAIN_SECONDS = 10.0
"""Beyond the time limit of a request, for a replica that is taken away to end what it answers."""


def open_engine(config: RunConfig) -> Any:
    """The engine of a configuration, without adapters; torch is imported only here."""
    import torch

    from compass_ray.models.base import load_base
    from compass_ray.models.engine import Engine, Limits

    torch.set_num_threads(config.resources.threads_per_worker)
    wanted = config.serve
    limits = Limits(
        rows=wanted.max_rows,
        context=wanted.max_prompt_tokens + wanted.max_tokens,
        prefill_tokens=wanted.prefill_tokens,
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
        self.tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizing")
        self.loading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading")
        self.host = AdapterHost(self.generation, self.run, clock=time.monotonic)
        self.reader = registry.CatalogueReader(self.run, self.config.languages)
        self.streams = 0
        self._follow()
        self.following = asyncio.create_task(self._keep_following())

    async def answer(self, order: Order) -> Answer:
        """One reply, whole."""
        whole = Whole()
        async with self._under_way(order, whole.hear):
            return await whole.answer

    async def stream(self, order: Order) -> AsyncIterator[Piece | Answer]:
        """One reply, piece by piece, and whole at the end; whoever stops listening frees its place."""
        pieces = Pieces()
        self.streams += 1
        try:
            async with self._under_way(order, pieces.hear):
                async for each in pieces.parts(lambda: pause(self.streams)):
                    yield each
        finally:
            self.streams -= 1

    @asynccontextmanager
    async def _under_way(self, order: Order, hear: Sink) -> AsyncIterator[None]:
        await self._adapters(order)
        begun = self.generation.submit(await self._tokenised(order), hear)
        try:
            await self._begun(begun)
            yield
        finally:
            # Said of every order, since one that is done is not heard of again.
            begun.add_done_callback(lambda done: None if done.exception() else self.generation.cancel(done.result()))

    async def catalogue(self) -> Catalogue:
        """Read the pointers, load what became live, and say what can be answered with."""
        return await asyncio.to_thread(self._follow)

    async def state(self) -> HostState:
        """What can be answered with as of the last look, what cannot, and how full the batches were."""
        return self.host.state(self.generation.steps, self.generation.orders)

    def check_health(self) -> None:
        """Called by Serve, which puts another replica in the place of one that fails it."""
        if not self.generation.sound:
            raise RuntimeError("the engine no longer generates; its log says why")

    async def _adapters(self, order: Order) -> None:
        names = [name for name in (order.adapter, order.blend[0] if order.blend else None) if name]
        if not self.host.ready(names):
            for name in names:
                await asyncio.get_running_loop().run_in_executor(self.loading, self.host.ensure, name)

    async def _tokenised(self, order: Order) -> Order:
        """The order by its token ids, made where a long prompt holds up nobody's reply."""
        with _refusals():
            ids = await asyncio.get_running_loop().run_in_executor(self.tokenizing, self.generation.engine.prompt, order)
        return replace(order, messages=(), text=None, ids=ids)

    async def _begun(self, begun: Any) -> None:
        with _refusals():
            await asyncio.shield(asyncio.wrap_future(begun))

    def _follow(self) -> Catalogue:
        return self.host.follow(self.reader.read())

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self.catalogue()
            except Exception:  # a store that is out of reach for a moment: what is loaded goes on
                logger.exception("the live pointers could not be read; they are read again in half a second")


@contextmanager
def _refusals() -> Iterator[None]:
    """What the engine says of an order that it cannot follow, in the service's words."""
    try:
        yield
    except ValueError as error:
        kind = TooLongOrderError if isinstance(error, TooLongError) else BadOrderError
        raise kind(str(error)) from None


def deployment(config: RunConfig) -> serve.Deployment:
    """The deployment with the resources of a configuration."""
    deploy = serve.deployment(
        name=NAME,
        **scaling.replicas(config),
        max_ongoing_requests=config.serve.max_waiting,
        graceful_shutdown_timeout_s=config.serve.request_seconds + _DRAIN_SECONDS,
        ray_actor_options=scaling.actor_options(config.resources),
    )
    deployed: serve.Deployment = deploy(AdapterServer)
    return deployed
