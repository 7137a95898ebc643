"""How many replicas the adapter server has and what each takes, as Ray Serve wants it told.

Key property: a service that may grow does so before a replica's rows are full, since a new replica loads the base model
first; what it may grow to is bounded by the configuration, never by the cluster. It starts nothing.
"""

from __future__ import annotations

from typing import Any

from compass_ray.config import Resources, RunConfig


def scaling_options(config: RunConfig) -> dict[str, Any]:
    """Options of a Serve deployment: a fixed number of replicas, or the bounds between which Serve chooses.

    A replica is added when on average more than half of ``serve.max_num_seqs`` requests are under way in each, so that others
    still find rows while it loads. One is taken away after ten quiet minutes, Serve's own default.

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
    """What each replica takes of its machine."""
    return {
        "num_cpus": resources.replica_cpus,
        "num_gpus": resources.replica_gpus,
        "resources": dict(resources.replica_resources),
    }
