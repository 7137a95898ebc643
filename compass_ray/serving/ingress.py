"""The ingress, a Serve deployment: HTTP, language identification, routing, and forwarding of traffic to the monitor.

It loads only the language identifier, not torch. It polls the adapter server twice a second for the loaded versions. The work is
done in `inference.service` and `api`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from compass_ray import registry
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import RunConfig
from compass_ray.heap_trim import trim_heap_forever
from compass_ray.monitoring.forwarder import TrafficForwarder
from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.monitoring.retention import load_secret
from compass_ray.monitoring.steady_clock import SteadyClock
from compass_ray.serving import monitor_actor
from compass_ray.serving.actor_names import NAMESPACE, controller_name
from compass_ray.serving.api.access import Access
from compass_ray.serving.api.access_log import AccessLog
from compass_ray.serving.api.application import build_api
from compass_ray.serving.api.auth import ApiKeys, KeyReloader
from compass_ray.serving.api.rate_limits import RequestLimits
from compass_ray.serving.engine_client import EngineClient
from compass_ray.serving.engine_host.adapter_sync import HostState, merge_host_state
from compass_ray.serving.inference.backend import InferenceBackend
from compass_ray.serving.inference.client_hashes import ClientHashes
from compass_ray.serving.inference.service import InferenceService, TrafficSink
from compass_ray.serving.metrics.part_responses import PartResponses
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.metrics.status import MAX_DECISIONS, build_status, select_fields
from compass_ray.serving.ray_metrics import RayMetricsExporter
from compass_ray.serving.routing.conversation import ConversationMemory
from compass_ray.serving.routing.router import Router
from compass_ray.serving.service_poll import IngressActivity

logger = logging.getLogger(__name__)

SYNC_INTERVAL_S = 0.5
KEYS_INTERVAL_S = 5.0
"""Time between two reads of the file of API keys."""
_STATUS_INTERVAL_S = 5.0
_MONITOR_TIMEOUT_S = 2.0
_DRAIN_SECONDS = 10.0
_EXTRA_REQUESTS = 64
"""Requests allowed beyond completions and unfinished bodies: dashboard, status, metrics, and refusals of excess requests."""


class Ingress:
    """Deployment class; see `build_deployment`."""

    def __init__(
        self, run_uri: str, config: Mapping[str, Any], server: DeploymentHandle[Any], access: Access | None = None
    ) -> None:
        """Load the identifier, read the catalogue, and start the background loops."""
        self.config = RunConfig.model_validate(config)
        self.run = RunDir(run_uri)
        self.access = access or Access()
        self.keys = ApiKeys(self.access.digests)
        self.backend = EngineClient(server)
        self.monitored = self.run.clusters.manifest() is not None
        self.monitor: Any = None
        self.controller: Any = None
        self.responses = PartResponses()
        self.forwarder = TrafficForwarder(self._deliver_observations, self._deliver_feedback)
        self.clock = SteadyClock(time.time, time.monotonic)
        self.access_log = AccessLog(self.clock)
        self.statistics = RequestStatistics(self.clock, [RayMetricsExporter()])
        hashes = ClientHashes(load_secret(self.run))
        self.service = build_service(self.config, self.backend, self, self.statistics, self.clock, hashes)
        self.host_state = HostState(registry.read_catalogue(self.run, self.config.languages), {})
        self.service.catalogue = self.host_state.catalogue
        self.cached_status: dict[str, Any] = {"monitor": None, "controller": None, "decisions": []}
        self.tasks = [asyncio.create_task(_repeat_forever(self._sync_catalogue, SYNC_INTERVAL_S))]
        self.tasks.append(asyncio.create_task(_repeat_forever(self._refresh_status, _STATUS_INTERVAL_S)))
        if self.monitored:
            self._monitor_handle()
            self.tasks.append(asyncio.create_task(self.forwarder.run()))
        trim_heap_forever()
        if self.access.key_file:
            self.key_reloader = KeyReloader(self.keys, self.access.key_file)
            self.tasks.append(asyncio.create_task(_repeat_forever(self._reload_keys, KEYS_INTERVAL_S)))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP application. Built in the replica, so it is never pickled."""
        limits = RequestLimits.from_config(self.config.serve)
        self.api = build_api(
            self.service,
            self.status,
            drain=self.forwarder.drain,
            keys=self.keys,
            hosts=self.access.hosts,
            limits=limits,
            access_log=self.access_log,
            trust_request_id=True,
            report=self.read_report,
            run_id=self.run.public_id,
        )
        return self.api

    async def drain(self) -> None:
        """Refuse new requests. Return when all active responses are sent and forwarded to the monitor."""
        admission = self.api.state.admission
        admission.close()
        await admission.wait_until_idle(self.config.serve.request_timeout_s)
        await self.service.shadows.close()
        await self.forwarder.drain()

    async def activity(self, last_requests: Mapping[str, int]) -> IngressActivity:
        """What happened after the last known request of this replica. ``last_requests`` has names of access logs as keys."""
        decisions = [select_fields(each) for each in self.cached_status["decisions"]]
        requests = self.access_log.since(last_requests.get(self.access_log.name, 0))
        return IngressActivity(self.access_log.name, requests, self.backend.retries, decisions)

    async def status(self) -> dict[str, Any]:
        """The content of ``/v1/compass/status``."""
        await self._refresh_status()
        return build_status(
            run=self.run.shown_uri,
            languages=self.config.languages,
            catalogue=self.service.catalogue,
            statistics=self.statistics,
            problems=self.host_state.problems,
            traffic=self.forwarder.counts(),
            engine={"steps": self.host_state.steps, "orders": self.host_state.requests, "sent_again": self.backend.retries},
            monitor=self.cached_status["monitor"],
            controller=self.cached_status["controller"],
            decisions=self.cached_status["decisions"],
        )

    async def read_report(self) -> bytes | None:
        """The run's report as HTML; None if it was not written, or cannot be read now."""
        try:
            return await asyncio.to_thread(_read_report, self.run)
        except (ArtifactError, OSError) as error:
            logger.warning("ingress: cannot read the report: %s", error)
            return None

    def put(self, observation: Observation) -> None:
        """Forward an answered prompt to the monitor, if the run has clusters."""
        if self.monitored:
            self.forwarder.put(observation)

    def submit_feedback(self, feedback: Feedback) -> None:
        """Forward feedback to the monitor, if the run has clusters."""
        if self.monitored:
            self.forwarder.submit_feedback(feedback)

    async def _deliver_observations(self, batch: list[Observation]) -> None:
        await self._send_to_monitor("record", batch)

    async def _deliver_feedback(self, batch: list[Feedback]) -> None:
        await self._send_to_monitor("record_feedback", batch)

    async def _send_to_monitor(self, method: str, batch: list[Any]) -> None:
        try:
            await getattr(self._monitor_handle(), method).remote(batch)
        except RayActorError:
            self.monitor = None
            raise

    def _monitor_handle(self) -> Any:
        """The monitor's handle. Cached, because a lookup by name in Ray would delay responses."""
        if self.monitor is None:
            self.monitor = monitor_actor.connect(self.run.uri, self.config).actor
        return self.monitor

    async def _sync_catalogue(self) -> None:
        self.host_state = await self.backend.state()
        self.service.catalogue = merge_host_state(self.service.catalogue, self.host_state)

    async def _reload_keys(self) -> None:
        """Follow the file of API keys. A new problem of the file is also shown to operators."""
        before = self.key_reloader.problem
        await asyncio.to_thread(self.key_reloader.reload)
        if (problem := self.key_reloader.problem) and problem != before:
            self.statistics.record_error(f"The previous API keys stay in use: {problem}")

    async def _refresh_status(self) -> None:
        parts = {"monitor": await self._monitor_status(), "controller": await self._controller_status()}
        self.cached_status = {**parts, "decisions": await self._decisions()}
        self.statistics.export_monitor_status(parts["monitor"], self.forwarder.counts())
        self.statistics.export_parts(parts, len({**self.service.catalogue.problems, **self.host_state.problems}))

    async def _decisions(self) -> list[dict[str, Any]]:
        """The latest decisions; the previous ones if the store cannot be reached."""
        try:
            decisions = await asyncio.to_thread(registry.read_decisions, self.run)
        except (ArtifactError, OSError) as error:
            logger.warning("ingress: cannot read the decision log, keeping the previous entries: %s", error)
            return list(self.cached_status["decisions"])
        return [each.to_json() for each in decisions[-MAX_DECISIONS:]]

    async def _monitor_status(self) -> dict[str, Any] | None:
        if not self.monitored:
            return None
        try:
            status: dict[str, Any] = await asyncio.wait_for(self._monitor_handle().status.remote(), _MONITOR_TIMEOUT_S)
        except Exception as error:
            return self.responses.describe_silence("monitor", self.cached_status["monitor"], error)
        self.responses.record("monitor")
        return status

    async def _controller_status(self) -> dict[str, Any] | None:
        if not self.config.update.auto:
            return None
        try:
            if self.controller is None:
                self.controller = await asyncio.to_thread(ray.get_actor, controller_name(self.run.uri), NAMESPACE)
            failure: str = await asyncio.wait_for(self.controller.failure.remote(), _MONITOR_TIMEOUT_S)
        except Exception as error:
            self.controller = None
            return self.responses.describe_silence("controller", None, error)
        self.responses.record("controller")
        return {"failed": failure} if failure else {}


def build_service(
    config: RunConfig,
    backend: InferenceBackend,
    traffic: TrafficSink,
    statistics: RequestStatistics,
    clock: Callable[[], float],
    hashes: ClientHashes | None = None,
) -> InferenceService:
    """The service of a configuration, with its language identifier and router; the rest is as in `InferenceService`."""
    from compass_ray.models.language_id import LanguageIdentifier

    identifier = LanguageIdentifier(config.identifier)
    if unknown := identifier.unknown_languages(config.languages):
        logger.warning(
            "ingress: the identifier %s does not know %s: a request gets the adapter of such a language only if it names it",
            config.identifier.model,
            ", ".join(unknown),
        )
    router = Router(identifier, languages=config.languages, config=config.identifier, memory=ConversationMemory(time.monotonic))
    return InferenceService(
        router,
        backend,
        traffic,
        statistics,
        max_tokens=config.serve.max_tokens,
        timeout_s=config.serve.request_timeout_s,
        hashes=hashes,
        clock=clock,
    )


def _read_report(run: RunDir) -> bytes | None:
    return run.report.read_bytes("index.html") if run.report.manifest() else None


async def _repeat_forever(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Run ``work`` periodically. A failure is logged and retried at the next interval."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            logger.exception("ingress: %s failed, retrying in %g s", work.__name__.strip("_"), seconds)


def build_deployment(config: RunConfig) -> serve.Deployment:
    """The deployment, with the resources of a configuration."""
    limits = RequestLimits.from_config(config.serve)
    deploy = serve.deployment(
        name="ingress",
        max_ongoing_requests=limits.max_concurrent_requests + limits.max_unfinished_bodies + _EXTRA_REQUESTS,
        graceful_shutdown_timeout_s=config.serve.request_timeout_s + _DRAIN_SECONDS,
        ray_actor_options={
            "num_cpus": config.resources.replica_cpus,
            "resources": dict(config.resources.replica_resources),
        },
    )
    deployed: serve.Deployment = deploy(serve.ingress()(Ingress))
    return deployed
