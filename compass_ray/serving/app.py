"""The Serve application of a run: build, start, drain and stop it.

Only the run's URI and its configuration are sent to the replicas; each process loads what it needs from the run. The
application has two deployments and the monitor actor, because each process costs about 300 MB.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from compass_ray import ray_session, registry
from compass_ray.artifacts import RunDir
from compass_ray.artifacts.private_files import is_open_to_others
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.engine.vllm_backend.engine_arguments import list_unsupported_settings
from compass_ray.monitoring.retention import load_secret
from compass_ray.serving import adapter_server, ingress, monitor_actor
from compass_ray.serving.api.access import Access
from compass_ray.serving.api.host_check import default_hosts
from compass_ray.serving.api.key_source import find_key_file, read_keys

logger = logging.getLogger(__name__)

NAME = "compass-ray"
ADAPTER_DEPLOYMENT = adapter_server.NAME
_POLL_INTERVAL_S = 0.2
_PROXY_GRACE_S = 10.0
"""Time of Serve's proxy for a request beyond the service's own limits, so that the service itself reports a timeout."""


@dataclass(frozen=True)
class Endpoint:
    """A running service: its URL and the run that it serves."""

    url: str
    run_uri: str


def build_app(run_uri: str, config: RunConfig, host: str | None = None) -> serve.Application:
    """The application of a run, for `start` and `from_config_file`.

    API keys are read here, from the file or environment of the process that starts the service. Replicas get their hashes, and
    re-read the file. A running monitor is restarted with these settings. ``host`` is the address of the endpoint, if known: at a
    loopback address without keys, and without ``serve.allowed_hosts``, only requests to this machine's names are answered.

    Raises:
        ConfigError: the source of API keys is invalid, or the engine does not support the settings.
    """
    _check_engine(config)
    uri, settings = RunDir(run_uri).uri, config.model_dump(mode="json")
    keys = read_keys(os.environ, config.serve.api_keys)
    access = Access(
        digests=keys,
        key_file=find_key_file(os.environ, config.serve.api_keys),
        hosts=config.serve.allowed_hosts or (None if keys or host is None else default_hosts(host)),
    )
    _warn_if_readable(config.serve.api_keys)
    load_secret(RunDir(uri))  # created here once, not by several replicas at a time
    monitor_actor.restart_if_running(uri, config)
    adapters = adapter_server.build_deployment(config).bind(uri, settings)
    return ingress.build_deployment(config).bind(uri, settings, adapters, access)


def from_config_file(args: dict[str, Any]) -> serve.Application:
    """The application of a Serve config file, without the controller; see `parse_app_args`."""
    run, config = parse_app_args(args)
    return build_app(run.uri, config)


def parse_app_args(args: dict[str, Any]) -> tuple[RunDir, RunConfig]:
    """The run and the settings of ``args: {run: URI, set: [...]}`` in a Serve config file. Promotes first versions.

    ``set`` overrides settings of the run for this service, for example ``resources.max_replicas=4``.

    Raises:
        ArtifactError: there is no run at the URI, or it has no adapter.
        ConfigError: unknown arguments or invalid settings.
    """
    if not {"run"} <= args.keys() <= {"run", "set"} or not isinstance(args.get("set", []), list):
        raise ConfigError(f"Invalid application args {args}. Expected {{run: URI}} and, optionally, set: [SETTING=VALUE].")
    run = RunDir(args["run"])
    config = with_overrides(run.read_config(), args.get("set", []))
    registry.promote_first_versions(config, run)
    return run, config


def start(run_uri: str, config: RunConfig, *, port: int | None = None, host: str | None = None) -> Endpoint:
    """Serve a run; return when the endpoint is ready. Port 0 selects a free port.

    Raises:
        ArtifactError: there is no run at the URI.
        ConfigError: the port is taken, or Serve already runs at another port.
    """
    run = RunDir(run_uri)
    run.read_config()
    host = config.serve.host if host is None else host
    port = _free_port(host, config.serve.port if port is None else port)
    if default_hosts(host) is None:
        logger.warning("serve: other machines can reach %s; put the proxy of cluster_configs/nginx in front of it", host)
    ray_session.start(config.resources)
    options = _http_options(config, host, port)
    application = build_app(run.uri, config, host)
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=options, logging_config=_logging_config())
    _check_port(port)
    serve.run(application, name=NAME, route_prefix="/", logging_config=_logging_config())
    return Endpoint(url=f"http://{host}:{port}", run_uri=run.uri)


def drain(cancelled: Callable[[], bool] = lambda: False) -> None:
    """Refuse new requests. Return when all active responses are sent, or when ``cancelled`` returns true."""
    draining = serve.get_app_handle(NAME).drain.remote()
    while not cancelled():
        try:
            draining.result(timeout_s=_POLL_INTERVAL_S)
        except TimeoutError:
            continue
        return


def stop(endpoint: Endpoint) -> None:
    """Stop serving and stop the monitor; everything it acknowledged is stored in the run. Cuts active responses: see `drain`.

    Shuts Serve down too, unless this cluster has other Serve applications.
    """
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call]
    monitor_actor.stop(endpoint.run_uri)


def _check_engine(config: RunConfig) -> None:
    if unsupported := list_unsupported_settings(config):
        raise ConfigError(f"The engine does not support the settings: {'. '.join(unsupported)}.")


def _warn_if_readable(key_file: str | None) -> None:
    """Warn if other users may read the file of API keys. It holds hashes, which allow guesses of weak keys."""
    if key_file and Path(key_file).exists() and is_open_to_others(Path(key_file)):
        logger.warning("serve: the API key file %s is open to other users; run 'chmod 600 %s'", key_file, key_file)


def _http_options(config: RunConfig, host: str, port: int) -> HTTPOptions:
    timeout_s = config.serve.body_timeout_s + config.serve.request_timeout_s + _PROXY_GRACE_S
    return HTTPOptions(host=host, port=port, request_timeout_s=timeout_s)


def _check_port(port: int) -> None:
    """Raise ConfigError if Serve already runs at another port. A running Serve keeps its port."""
    client = serve.context._get_global_client()
    running = client.http_config.port if client else port
    if running != port:
        raise ConfigError(
            f"Ray Serve already runs on this cluster at port {running}, so port {port} cannot be used. "
            f"Stop it with 'serve shutdown' if it is not needed, or serve on another cluster."
        )


def _free_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            remedy = "Give an address of this machine with --host."
            if error.errno != errno.EADDRNOTAVAIL:
                remedy = "Give another port with --port, or 0 for any free port."
            raise ConfigError(f"Cannot listen on {host}:{port} ({error.strerror}). {remedy}") from None
        return int(probe.getsockname()[1])


def _logging_config() -> dict[str, Any]:
    return {"log_level": "WARNING", "enable_access_log": False}
