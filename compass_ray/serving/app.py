"""The Serve application of a run: build it, start it, stop it.

Key property: the run's address and its configuration are all that travels; every process loads what it
needs from there. Two deployments and one actor, since each process costs some 300 MB. It decides nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.serving import ingress, monitor_actor, server

NAME = "compass-ray"


@dataclass(frozen=True)
class Endpoint:
    """A service that runs: where it answers and which run it serves."""

    url: str
    run_uri: str


def build_app(run_uri: str, config: RunConfig) -> serve.Application:
    """The application over a run, for `start` and `from_config_file`."""
    uri, settings = RunDir(run_uri).uri, config.model_dump(mode="json")
    adapters = server.deployment(config).bind(uri, settings)
    return ingress.deployment(config).bind(uri, settings, adapters)


def from_config_file(args: dict[str, str]) -> serve.Application:
    """What ``serve deploy`` calls: the application over the run that its file gives as ``args: {run: URI}``.

    Raises:
        ArtifactError: there is no run there.
    """
    run = RunDir(args["run"])
    return build_app(run.uri, run.recorded())


def start(run_uri: str, config: RunConfig, *, port: int | None = None, host: str | None = None) -> Endpoint:
    """Serve a run and return when it answers; port 0 takes a free one.

    Raises:
        ArtifactError: there is no run there.
        ConfigError: the port is taken.
    """
    run = RunDir(run_uri)
    run.recorded()
    host = config.serve.host if host is None else host
    port = _free_port(host, config.serve.port if port is None else port)
    ray_session.start(config.resources)
    options = HTTPOptions(host=host, port=port)
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=options, logging_config=_logging())
    serve.run(build_app(run.uri, config), name=NAME, route_prefix="/", logging_config=_logging())
    return Endpoint(url=f"http://{host}:{port}", run_uri=run.uri)


def stop(endpoint: Endpoint) -> None:
    """Stop serving and end the monitor; what it acknowledged stays in the run."""
    serve.shutdown()  # type: ignore[no-untyped-call]
    monitor_actor.end(endpoint.run_uri)


def _free_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be served on ({error.strerror}); give another with --port, or 0 for a free"
            ) from None
        return int(probe.getsockname()[1])


def _logging() -> dict[str, Any]:
    return {"log_level": "WARNING", "enable_access_log": False}
