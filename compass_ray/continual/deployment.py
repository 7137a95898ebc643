"""Start, deploy and stop the service together with its controller.

`compass_ray.serving` serves and monitors without importing `continual`; this module connects the two. Without
``update.auto`` only the service runs.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import serve

from compass_ray.config import RunConfig
from compass_ray.continual.controller import actor
from compass_ray.preflight import require_limited_updates
from compass_ray.serving import app as serving
from compass_ray.serving.app import Endpoint


def app(args: dict[str, Any]) -> serve.Application:
    """The Serve application for ``serve deploy``, with the run's controller if ``update.auto`` is set.

    Raises:
        ArtifactError: the run does not exist or has no adapter.
        ConfigError: unknown arguments or invalid settings, or automatic updates would be open to all clients.
    """
    run, config = serving.parse_app_args(args)
    require_limited_updates(config, None)
    _sync_controller(run.uri, config)
    return serving.build_app(run.uri, config)


def start(run_uri: str, config: RunConfig, *, port: int | None = None, host: str | None = None) -> Endpoint:
    """Run `serving.app.start`, and start the run's controller if ``update.auto`` is set.

    Raises:
        ArtifactError, ConfigError: as `serving.app.start`; or automatic updates would be open to all clients.
    """
    require_limited_updates(config, host or config.serve.host)
    endpoint = serving.start(run_uri, config, port=port, host=host)
    _sync_controller(endpoint.run_uri, config)
    return endpoint


def stop(endpoint: Endpoint) -> None:
    """Stop the controller, then the service."""
    actor.stop_controller(endpoint.run_uri)
    serving.stop(endpoint)


def _sync_controller(run_uri: str, config: RunConfig) -> None:
    if config.update.auto:
        actor.start_controller(run_uri, config)
    elif ray.is_initialized():
        actor.stop_controller(run_uri)
