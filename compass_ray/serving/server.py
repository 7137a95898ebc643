"""The adapter server as a Serve deployment: one base model, every live adapter, batches that mix them.

Key property: one thread owns the engine, so batches and loads follow one another and no lock is held by a
request; orders that arrive while a batch runs form the next one. Live pointers are read every second and
followed without a restart. The work is `hosting.AdapterHost`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ray import serve

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.serving import registry
from compass_ray.serving.backend import Answer, Order
from compass_ray.serving.hosting import AdapterHost, HostState
from compass_ray.serving.registry import Catalogue

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0
_MAX_BATCH = 32
_BATCH_WAIT_SECONDS = 0.0
_NO_LIMIT = 1 << 30
T = TypeVar("T")


class EngineGenerator:
    """`models.engine.Engine` as `hosting.Generator`; imports torch only when it is made."""

    def __init__(self, config: RunConfig) -> None:
        """Load the base model."""
        import torch

        from compass_ray.models.base import load_base
        from compass_ray.models.engine import Engine

        torch.set_num_threads(config.resources.threads_per_worker)
        self.base = load_base(config.train)
        self.engine = Engine(self.base)

    @property
    def names(self) -> Sequence[str]:
        """Adapters that are loaded."""
        return tuple(self.engine.names)

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter resident."""
        self.engine.load(name, folder)

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        self.engine.unload(name)

    def answers(self, orders: Sequence[Order]) -> list[Answer]:
        """One reply to each order, adapters mixed."""
        from compass_ray.models.engine import Request

        requests = [
            Request(
                messages=_messages(order.messages),
                adapter=order.adapter,
                max_tokens=order.max_tokens,
                temperature=order.temperature,
                top_p=order.top_p,
                seed=order.seed,
                stop=order.stop,
            )
            for order in orders
        ]
        pairs = zip(orders, self.engine.generate(requests), strict=True)
        return [
            Answer(
                text=done.text,
                adapter=order.adapter,
                prompt_tokens=done.prompt_tokens,
                completion_tokens=done.completion_tokens,
                finish_reason="length" if done.finish_reason == "length" else "stop",
                mean_nll=done.mean_nll,
            )
            for order, done in pairs
        ]

    def prompt_tokens(self, messages: Sequence[tuple[str, str]]) -> int:
        """Tokens that the conversation prefills."""
        from compass_ray.models.chat import encode_messages

        return len(encode_messages(self.base.tokenizer, _messages(messages), _NO_LIMIT))

    @property
    def context(self) -> int:
        """Tokens of prompt and reply together that the base model takes."""
        return getattr(self.base.model.config, "max_position_embeddings", None) or _NO_LIMIT


class AdapterServer:
    """Deployment class; see `deployment`."""

    def __init__(self, run_uri: str, config: Mapping[str, Any]) -> None:
        """Load the base and the live adapters, then keep following the pointers."""
        self.config = RunConfig.model_validate(config)
        self.run = RunDir(run_uri)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self.host = self.thread.submit(self._open).result()
        self.following = asyncio.create_task(self._keep_following())

    def _open(self) -> AdapterHost:
        generator = EngineGenerator(self.config)
        limit = min(self.config.serve.max_prompt_tokens, generator.context - self.config.serve.max_tokens)
        host = AdapterHost(generator, self.run, max_prompt_tokens=limit, clock=time.monotonic)
        host.follow(registry.catalogue(self.run, self.config.languages))
        return host

    async def answer(self, order: Order) -> Answer:
        """One reply, generated in a batch with whatever else waits."""
        outcome = await self._generate(order)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def catalogue(self) -> Catalogue:
        """Read the pointers, load what became live, and say what can be answered with."""
        found = await asyncio.to_thread(registry.catalogue, self.run, self.config.languages)
        return await self._in_engine(lambda: self.host.follow(found))

    async def state(self) -> HostState:
        """What can be answered with as of the last look, and how the batches went."""
        return self.host.state()

    @serve.batch(max_batch_size=_MAX_BATCH, batch_wait_timeout_s=_BATCH_WAIT_SECONDS)
    async def _generate(self, orders: list[Order]) -> list[Answer | Exception]:
        return await self._in_engine(lambda: self.host.generate(orders))

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self.catalogue()
            except Exception:  # a store that is out of reach for a moment: what is loaded goes on
                logger.exception("the live pointers could not be read; they are read again in a second")

    async def _in_engine(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.thread, work)


def _messages(turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def deployment(config: RunConfig) -> serve.Deployment:
    """The deployment with the resources of a configuration."""
    deploy = serve.deployment(
        name="adapters",
        num_replicas=config.resources.replicas,
        max_ongoing_requests=100,
        ray_actor_options={
            "num_cpus": config.resources.replica_cpus,
            "num_gpus": config.resources.replica_gpus,
        },
    )
    deployed: serve.Deployment = deploy(AdapterServer)
    return deployed
