"""The service together with its keeper: started, deployed and stopped as one.

Key property: `compass_ray.serving` serves and watches without knowing who makes updates; here the two meet. Without
``update.automatic`` this is the service alone. It answers nothing and decides nothing.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import serve

from compass_ray.config import RunConfig
from compass_ray.continual.keeping import actor
from compass_ray.serving import app as serving
from compass_ray.serving.app import Endpoint


def app(args: dict[str, Any]) -> serve.Application:
    """What ``serve deploy`` calls: as `serving.app.from_config_file`, with the run's keeper where updates are automatic.

    Raises:
        ArtifactError: there is no run there, or it has no adapter.
        ConfigError: other arguments, or settings that do not fit.
    """
    run, config = serving.configured(args)
    _keep(run.uri, config)
    return serving.build_app(run.uri, config)


def start(run_uri: str, config: RunConfig, *, port: int | None = None, host: str | None = None) -> Endpoint:
    """As `serving.app.start`, with the run's keeper where updates are automatic."""
    endpoint = serving.start(run_uri, config, port=port, host=host)
    _keep(endpoint.run_uri, config)
    return endpoint


def stop(endpoint: Endpoint) -> None:
    """As `serving.app.stop`; the keeper ends first."""
    actor.end(endpoint.run_uri)
    serving.stop(endpoint)


def _keep(run_uri: str, config: RunConfig) -> None:
    if config.update.automatic:
        actor.begin(run_uri, config)
    elif ray.is_initialized():
        actor.end(run_uri)
