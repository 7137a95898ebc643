"""The Serve application of a run: build it, start it, stop it.

Key property: the run's address and its configuration are all that travels; every process loads what it
needs from there. Two deployments and one actor, since each process costs some 300 MB. It decides nothing.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from compass_ray import ray_session, registry
from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.serving import adapter_server, ingress, monitor_actor
from compass_ray.serving.api.auth import ApiKeys

NAME = "compass-ray"
ADAPTER_DEPLOYMENT = adapter_server.NAME
_POLL_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Endpoint:
    """A service that runs: where it answers and which run it serves."""

    url: str
    run_uri: str


def build_app(run_uri: str, config: RunConfig) -> serve.Application:
    """The application over a run, for `start` and `from_config_file`.

    API keys are read here, where the file and the environment are whoever's that starts the service, and travel as hashes. A
    monitor that runs already gives its place to one with these settings.

    Raises:
        ConfigError: the source of keys cannot be used.
    """
    uri, settings = RunDir(run_uri).uri, config.model_dump(mode="json")
    keys = ApiKeys.load(os.environ, config.serve.api_keys)
    monitor_actor.restart_if_running(uri, config)
    adapters = adapter_server.build_deployment(config).bind(uri, settings)
    return ingress.build_deployment(config).bind(uri, settings, adapters, keys.digests)


def from_config_file(args: dict[str, Any]) -> serve.Application:
    """The application over the run of a Serve file's arguments, without anybody who makes updates; see `configured`."""
    run, config = parse_app_args(args)
    return build_app(run.uri, config)


def parse_app_args(args: dict[str, Any]) -> tuple[RunDir, RunConfig]:
    """The run that a Serve file gives as ``args: {run: URI, set: [...]}``, with something live, and its settings.

    ``set`` changes settings of the run for this service, as in ``resources.max_replicas=4``.

    Raises:
        ArtifactError: there is no run there, or it has no adapter.
        ConfigError: other arguments, or settings that do not fit.
    """
    if not {"run"} <= args.keys() <= {"run", "set"} or not isinstance(args.get("set", []), list):
        raise ConfigError(f"args of the application are {args}; give {{run: URI}}, and set: [settings] where some change")
    run = RunDir(args["run"])
    config = with_overrides(run.read_config(), args.get("set", []))
    registry.promote_first_versions(config, run)
    return run, config


def start(run_uri: str, config: RunConfig, *, port: int | None = None, host: str | None = None) -> Endpoint:
    """Serve a run and return when it answers; port 0 takes a free one.

    Raises:
        ArtifactError: there is no run there.
        ConfigError: the port is taken, or Serve runs at another one.
    """
    run = RunDir(run_uri)
    run.read_config()
    host = config.serve.host if host is None else host
    port = _free_port(host, config.serve.port if port is None else port)
    ray_session.start(config.resources)
    options = HTTPOptions(host=host, port=port)
    application = build_app(run.uri, config)
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=options, logging_config=_logging_config())
    _check_port(port)
    serve.run(application, name=NAME, route_prefix="/", logging_config=_logging_config())
    return Endpoint(url=f"http://{host}:{port}", run_uri=run.uri)


def drain(at_once: Callable[[], bool] = lambda: False) -> None:
    """Refuse new requests and return when the replies under way are sent, or when ``at_once`` says so."""
    drained = serve.get_app_handle(NAME).drain.remote()
    while not at_once():
        try:
            drained.result(timeout_s=_POLL_INTERVAL_S)
        except TimeoutError:
            continue
        return


def stop(endpoint: Endpoint) -> None:
    """Stop serving and end the monitor; what it acknowledged stays in the run. Replies under way are cut: see `drain`.

    Serve itself ends too, unless it serves something else on this cluster.
    """
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call]
    monitor_actor.stop(endpoint.run_uri)


def _check_port(port: int) -> None:
    """Raise ConfigError where Serve was running already: it stays at the port that it was started with."""
    client = serve.context._get_global_client()
    running = client.http_config.port if client else port
    if running != port:
        raise ConfigError(
            f"Ray Serve runs on this cluster already, at port {running}, and port {port} was asked for; end it with 'serve "
            f"shutdown' if nobody needs it, or serve on another cluster"
        )


def _free_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            remedy = "give an address of this machine with --host"
            if error.errno != errno.EADDRNOTAVAIL:
                remedy = "give another port with --port, or 0 for any free one"
            raise ConfigError(f"{host}:{port} cannot be served on ({error.strerror}); {remedy}") from None
        return int(probe.getsockname()[1])


def _logging_config() -> dict[str, Any]:
    return {"log_level": "WARNING", "enable_access_log": False}
