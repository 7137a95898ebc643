"""The endpoint of a run in a thread of this process, for one user at a terminal. It starts no Ray process.

Engine, router and API are those of the service. Nothing is recorded: there is no monitor, so a conversation is no traffic. The
endpoint has an API key of its own, so no other user of the machine can use its port.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.monitoring.steady_clock import SteadyClock
from compass_ray.serving.adapter_server import AdapterServer
from compass_ray.serving.api.application import build_api
from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.host_check import default_hosts
from compass_ray.serving.api.key_source import hash_key
from compass_ray.serving.api.rate_limits import RequestLimits
from compass_ray.serving.ingress import build_service
from compass_ray.serving.metrics.request_stats import RequestStatistics

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class LocalAddress:
    """Where the endpoint answers, and the API key that it requires."""

    url: str
    key: str


class _NoTraffic:
    """A `TrafficSink` that records nothing."""

    def put(self, observation: Observation) -> None:
        pass

    def submit_feedback(self, feedback: Feedback) -> None:
        pass


@contextmanager
def open_local_endpoint(run: RunDir, config: RunConfig) -> Iterator[LocalAddress]:
    """An endpoint at a free loopback port, while the block is open. It answers requests with its key only.

    Raises:
        ModelError: a model of the run is missing.
    """
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        endpoint = _LocalEndpoint(run, config)
        thread = threading.Thread(target=endpoint.run, args=(listener,), name="local endpoint", daemon=True)
        thread.start()
        try:
            endpoint.ready.result()
            yield LocalAddress(f"http://{_HOST}:{listener.getsockname()[1]}", endpoint.key)
        finally:
            endpoint.stop()
            thread.join()


class _LocalEndpoint:
    """Builds and runs the server in the thread of its event loop."""

    def __init__(self, run: RunDir, config: RunConfig) -> None:
        self.run_dir, self.config = run, config
        self.key = secrets.token_urlsafe()
        self.ready: Future[None] = Future()
        self.server: uvicorn.Server | None = None
        self.stopped = False

    def run(self, listener: socket.socket) -> None:
        """Serve until `stop`."""
        try:
            asyncio.run(self._serve(listener))
        except Exception as error:
            if not self.ready.done():
                self.ready.set_exception(error)

    def stop(self) -> None:
        """Let the server end after its active responses."""
        self.stopped = True
        if self.server:
            self.server.should_exit = True

    async def _serve(self, listener: socket.socket) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()  # of each loaded file, between the lines of the conversation
        backend = AdapterServer(self.run_dir.uri, self.config.model_dump(mode="json"))
        clock = SteadyClock(time.time, time.monotonic)
        service = build_service(self.config, backend, _NoTraffic(), RequestStatistics(clock), clock)
        await service.refresh_catalogue()
        api = build_api(
            service,
            self._status,
            keys=ApiKeys({hash_key(self.key): "this process"}),
            hosts=default_hosts(_HOST),
            limits=RequestLimits.from_config(self.config.serve),
        )
        self.server = uvicorn.Server(uvicorn.Config(api, log_level="critical"))
        self.server.should_exit = self.stopped  # `stop` was called while the models were loaded
        listener.listen()
        self.ready.set_result(None)
        await self.server.serve([listener])
        backend.sync_task.cancel()

    async def _status(self) -> dict[str, Any]:
        return {"run": self.run_dir.shown_uri}
