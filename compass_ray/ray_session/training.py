"""One Ray Train run: workers that are started, watched and started again.

Key property: what a worker has done lies in the run directory, so a run that failed is started again and goes on from
there; Ray Train's own checkpoints are not used.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.config import Resources, RunConfig
from compass_ray.ray_session.cluster import capacity


def worker_request(resources: Resources) -> dict[str, float]:
    """What one worker asks the cluster for, by Ray's names."""
    gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker > 0 else {}
    return {"CPU": resources.cpus_per_worker, **gpus}


def workers_at_once(resources: Resources, wanted: int) -> int:
    """How many of the workers wanted the cluster holds when it has grown as far as it may; one at least.

    Bounded by what it can grow to and not by what it is, so that its autoscaler sees what is wanted.
    """
    return max(1, min(wanted, room(worker_request(resources))))


def room(request: Mapping[str, float]) -> int:
    """How many such requests the cluster can hold; more than anybody wants where that is unknown."""
    found = capacity().at_most(request)
    return sys.maxsize if found is None else found


def fit(
    config: RunConfig,
    run: RunDir,
    worker: Callable[[Mapping[str, Any]], None],
    loop: Mapping[str, Any],
    *,
    workers: int,
    max_failures: int | None = None,
) -> None:
    """Execute ``worker`` under Ray Train, restarted on failure; it gets ``loop``, the run's URI and its configuration.

    ``max_failures`` is that of the resources when None, and without bound when -1.

    Raises:
        ray.train.TrainingFailedError: workers failed more often.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    from compass_ray.ray_session.backend import ByDevice

    request, limit = worker_request(config.resources), config.resources.max_failures if max_failures is None else max_failures
    TorchTrainer(
        worker,
        train_loop_config={**loop, "uri": run.uri, "config": config.model_dump(mode="json")},
        torch_config=ByDevice(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in request,
            resources_per_worker=request,
        ),
        run_config=ray.train.RunConfig(
            # A name used twice in the same storage would resume silently.
            name=f"train-{uuid.uuid4().hex[:12]}",
            storage_path=f"{run.path}/train_runs",
            storage_filesystem=run.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=limit),
        ),
    ).fit()
