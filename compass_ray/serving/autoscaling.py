"""The number of adapter server replicas, and the resources and the Python of each, as options of Ray Serve.

An autoscaled service adds a replica before the batches of the present ones are full, because a new replica loads the base model
first. The configuration sets the maximum number of replicas.
"""

from __future__ import annotations

import shlex
from pathlib import Path
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


def replica_options(config: RunConfig) -> dict[str, Any]:
    """Options of a Serve deployment: what each replica reserves, and with vLLM the Python that runs it.

    vLLM on several GPUs of one machine starts a process for each, inside the reservation of the replica. With Ray as its
    executor it starts an actor for each, on any machines. Then the replica reserves a placement group, one GPU in each bundle.

    >>> from compass_ray.config import load_run_config
    >>> changes = ["serve.engine=vllm", "serve.vllm.tensor_parallel=2", "resources.replica_gpus=2"]
    >>> changes += ["serve.vllm.arguments={distributed_executor_backend: ray}"]
    >>> replica_options(load_run_config("atlas-test", overrides=changes))["placement_group_bundles"]
    [{'CPU': 0.2, 'GPU': 1.0}, {'GPU': 1.0}]
    """
    options, vllm = actor_options(config.resources), config.serve.vllm
    if config.serve.engine != "vllm":
        return {"ray_actor_options": options}
    if vllm.python:
        options["runtime_env"] = {"py_executable": shlex.quote(str(Path(vllm.python).expanduser().absolute()))}  # for a shell
    if vllm.arguments.get("distributed_executor_backend") != "ray":
        return {"ray_actor_options": options}
    options["num_gpus"] = 0  # the actors of vLLM take them
    bundle = {"GPU": 1.0, **config.resources.replica_resources}
    first = {"CPU": config.resources.replica_cpus, **bundle}
    others = [bundle] * (vllm.tensor_parallel - 1)
    return {"ray_actor_options": options, "placement_group_bundles": [first, *others], "placement_group_strategy": "PACK"}
