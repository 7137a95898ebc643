"""The ingress as a Serve deployment: HTTP, language identification and routing, and the way to the monitor.

Key property: it holds no model but the identifier's and loads no torch. What it answers with is what the
adapter server has loaded, asked for every second. The work is `chat.ChatService` and `http_api`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.serving import failures, monitor_actor, registry
from compass_ray.serving.backend import Answer, Order
from compass_ray.serving.chat import ChatService
from compass_ray.serving.forwarding import TrafficForwarder
from compass_ray.serving.hosting import HostState
from compass_ray.serving.http_api import build_api
from compass_ray.serving.observations import Observation
from compass_ray.serving.registry import Catalogue

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0
_MONITOR_SECONDS = 2.0


class ServerBackend:
    """The adapter server through its Serve handle, as `backend.Backend`."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        """Wrap the handle."""
        self.handle = handle

    async def answer(self, order: Order) -> Answer:
        """Generate one reply on some replica."""
        try:
            answer: Answer = await self.handle.answer.remote(order)
        except BackPressureError:
            raise failures.overloaded() from None
        except RayTaskError as error:  # its own text holds the replica's frames and address
            raise error.cause from None
        return answer

    async def catalogue(self) -> Catalogue:
        """The live and the whole versions, read anew."""
        catalogue: Catalogue = await self.handle.catalogue.remote()
        return catalogue

    async def state(self) -> HostState:
        """What the server answers with as of its last look, and how its batches went."""
        state: HostState = await self.handle.state.remote()
        return state


class Ingress:
    """Deployment class; see `deployment`."""

    def __init__(self, run_uri: str, config: Mapping[str, Any], server: DeploymentHandle[Any]) -> None:
        """Load the identifier, ask what is live, and start the loops that follow both."""
        from compass_ray.models.language_id import LanguageIdentifier

        self.config = RunConfig.model_validate(config)
        self.run = RunDir(run_uri)
        self.backend = ServerBackend(server)
        self.watched = self.run.clusters.manifest() is not None
        self.monitor: Any = None
        self.forwarder = TrafficForwarder(self._deliver)
        self.service = self._service(LanguageIdentifier(self.config.identifier))
        self.server = HostState(registry.catalogue(self.run, self.config.languages), {})
        self.service.catalogue = self.server.catalogue
        self.tasks = [asyncio.create_task(self._follow())]
        if self.watched:
            self._monitor()
            self.tasks.append(asyncio.create_task(self.forwarder.run()))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP application, made in the replica: nothing of it is pickled."""
        return build_api(self.service, self.status, self.forwarder.drain)

    async def status(self) -> dict[str, Any]:
        """What ``/v1/compass/status`` shows."""
        catalogue = self.service.catalogue
        return {
            "run": self.run.uri,
            "languages": {
                code: {"live": catalogue.live.get(code), "versions": list(catalogue.versions.get(code, ()))}
                for code in self.config.languages
            },
            "requests": self.service.counters.summary(),
            "batches": {"batches": self.server.batches, "orders": self.server.orders},
            "problems": dict(self.server.problems),
            "traffic": self.forwarder.counts(),
            "monitor": await self._monitor_status(),
        }

    def _service(self, identifier: Any) -> ChatService:
        return ChatService(
            identifier,
            self.backend,
            self,
            languages=self.config.languages,
            threshold=self.config.identifier.threshold,
            max_tokens=self.config.serve.max_tokens,
            clock=time.time,
        )

    def put(self, observation: Observation) -> None:
        """Hand an answered prompt on, where the run has clusters to place it in."""
        if self.watched:
            self.forwarder.put(observation)

    async def _deliver(self, batch: list[Observation]) -> None:
        try:
            await self._monitor().record.remote(batch)
        except RayActorError:
            self.monitor = None
            raise

    def _monitor(self) -> Any:
        """The actor's handle, kept: asking Ray for it by name would hold up replies."""
        if self.monitor is None:
            self.monitor = monitor_actor.connect(self.run.uri, self.config).actor
        return self.monitor

    async def _monitor_status(self) -> dict[str, Any] | None:
        if not self.watched:
            return None
        try:
            status: dict[str, Any] = await asyncio.wait_for(self._monitor().status.remote(), _MONITOR_SECONDS)
        except Exception as error:
            return {"unreachable": type(error).__name__}
        return status

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                self.server = await self.backend.state()
                self.service.catalogue = self.server.catalogue
            except Exception:  # no replica for a moment: what was known goes on
                logger.exception("the adapter server did not say what is live; it is asked again in a second")


def deployment(config: RunConfig) -> serve.Deployment:
    """The deployment with the resources of a configuration."""
    deploy = serve.deployment(
        name="ingress",
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": config.resources.replica_cpus},
    )
    deployed: serve.Deployment = deploy(serve.ingress()(Ingress))
    return deployed
