"""The number of adapter server replicas and the resources of each, as options of Ray Serve.

An autoscaled service adds a replica before the batches of the present ones are full, because a new replica loads the base model
first. The configuration sets the maximum number of replicas.
"""

from __future__ import annotations

from typing import Any

from compass_ray.config import Resources, RunConfig


def scaling_options(config: RunConfig) -> dict[str, Any]:
    """Options of a Serve deployment: a fixed number of replicas, or bounds for autoscaling.

    A replica is added when each has on average more than half of ``serve.max_num_seqs`` active requests, so that there is
    capacity left while it loads. A replica is removed after ten minutes of low traffic, Serve's default.

    >>> from compass_ray.config import load_run_config
    >>> scaling_options(load_run_config("atlas-test", overrides=["resources.replicas=2"]))
    {'num_replicas': 2}
    """
    resources = config.resources
    if resources.max_replicas is None or resources.max_replicas == resources.replicas:
        return {"num_replicas": resources.replicas}
    bounds = {
        "min_replicas": resources.replicas,
        "initial_replicas": resources.replicas,
        "max_replicas": resources.max_replicas,
        "target_ongoing_requests": max(config.serve.max_num_seqs / 2, 1.0),
    }
    return {"autoscaling_config": bounds}


def actor_options(resources: Resources) -> dict[str, Any]:
    """The resources that each replica reserves."""
    return {
        "num_cpus": resources.replica_cpus,
        "num_gpus": resources.replica_gpus,
        "resources": dict(resources.replica_resources),
    }
