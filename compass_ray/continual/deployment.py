"""The service together with its keeper: started, deployed and stopped as one.

Key property: `compass_ray.serving` serves and watches without knowing who makes updates; here the two meet. Without
``update.auto`` this is the service alone. It answers nothing and decides nothing.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import serve

from compass_ray.config import RunConfig
from compass_ray.continual.controller import actor
from compass_ray.serving import app as serving
from compass_ray.serving.app import Endpoint


def app(args: dict[str, Any]) -> serve.Application:
    """What ``serve deploy`` calls: as `serving.app.from_config_file`, with the run's keeper where updates are automatic.

    Raises:
        ArtifactError: there is no run there, or it has no adapter.
        ConfigError: other arguments, or settings that do not fit.
    """
    run, config = serving.parse_app_args(args)
    _sync_controller(run.uri, config)
    return serving.build_app(run.uri, config)


def start(run_uri: str, config: RunConfig, *, port: int | None = None, host: str | None = None) -> Endpoint:
    """As `serving.app.start`, with the run's keeper where updates are automatic."""
    endpoint = serving.start(run_uri, config, port=port, host=host)
    _sync_controller(endpoint.run_uri, config)
    return endpoint


def stop(endpoint: Endpoint) -> None:
    """As `serving.app.stop`; the keeper ends first."""
    actor.stop_controller(endpoint.run_uri)
    serving.stop(endpoint)


def _sync_controller(run_uri: str, config: RunConfig) -> None:
    if config.update.auto:
        actor.start_controller(run_uri, config)
    elif ray.is_initialized():
        actor.stop_controller(run_uri)
