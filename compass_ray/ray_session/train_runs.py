"""Ray Train runs: workers that are started, watched and started again.

Key property: what a worker has done lies in the run directory, so a run that failed is started again and goes on from
there; Ray Train's own checkpoints are not used.
"""

from __future__ import annotations

import sys
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, Resources, RunConfig
from compass_ray.ray_session.cluster import read_capacity
from compass_ray.ray_session.errors import user_message

WorkerFunction = Callable[[Mapping[str, Any]], None]
"""What a Train run calls in each of its workers."""


def worker_request(resources: Resources) -> dict[str, float]:
    """What one worker asks the cluster for, by Ray's names."""
    return resources.resources_per_worker()


def max_concurrent_workers(resources: Resources, wanted: int) -> int:
    """How many of the workers wanted the cluster holds when it has grown as far as it may; one at least.

    Bounded by what it can grow to and not by what it is, so that its autoscaler sees what is wanted.
    """
    return max(1, min(wanted, max_fitting_requests(worker_request(resources))))


def require_capacity(resources: Resources, setting: str, workers: int) -> None:
    """Stop before workers that train together and would be waited for in vain.

    Raises:
        ConfigError: the cluster can never hold so many as ``setting`` asks for.
    """
    fits = max_fitting_requests(worker_request(resources))
    if fits < workers:
        raise ConfigError(
            f"resources.{setting} is {workers}, and this cluster can hold {fits} workers; lower it, or what a worker asks for "
            f"(resources.cpus_per_worker, resources.gpus_per_worker), or give the cluster more machines"
        )


def require_worker_capacity(resources: Resources, what: str) -> None:
    """Stop before a single worker that would be waited for in vain.

    Raises:
        ConfigError: no machine that the cluster has or may start holds what it asks for.
    """
    request = worker_request(resources)
    if max_fitting_requests(request) < 1:
        asked = ", ".join(f"{name} {amount:g}" for name, amount in request.items())
        raise ConfigError(
            f"{what} asks for {asked} on one machine, and this cluster has and may start none that offers it; lower "
            f"resources.cpus_per_worker, gpus_per_worker or worker_resources, or give the cluster such a machine"
        )


def max_fitting_requests(request: Mapping[str, float]) -> int:
    """How many such requests the cluster can hold; more than anybody wants where that is unknown."""
    found = read_capacity().max_count(request)
    return sys.maxsize if found is None else found


def launch(
    config: RunConfig,
    run: RunDir,
    worker: WorkerFunction,
    loop: Mapping[str, Any],
    *,
    workers: int,
    max_failures: int | None = None,
) -> Any:
    """Begin a Ray Train run of ``worker``, which gets ``loop``, the run's URI and its configuration; returns its reference.

    ``max_failures`` is that of the resources when None, and without bound when -1. The run is watched by a task of its own
    on the driver's node: a thread of the driver could not be ended, and would outlive the session that it waits in.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # One call a process: what a worker has started goes with it, and an idle one keeps the run's controller alive.
    task = ray.remote(max_calls=1)(_fit).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    limit = config.resources.max_failures if max_failures is None else max_failures
    return task.remote(config, run, worker, {**loop, "uri": run.uri, "config": config.model_dump(mode="json")}, workers, limit)


def fit(config: RunConfig, run: RunDir, worker: WorkerFunction, loop: Mapping[str, Any], *, workers: int) -> None:
    """As `launch`, and wait for the end.

    Raises:
        ray.exceptions.RayTaskError: workers failed more often than ``resources.max_failures``.
    """
    import ray

    ray.get(launch(config, run, worker, loop, workers=workers))


class TrainRuns:
    """Ray Train runs by name, so many at once; the others wait until one has ended."""

    def __init__(self, at_once: int) -> None:
        """Nothing is begun."""
        self._at_once = at_once
        self._waiting: deque[tuple[str, Callable[[], Any]]] = deque()
        self._running: dict[Any, str] = {}
        self.failures: dict[str, str] = {}
        """What went wrong, by name."""

    def start(self, name: str, begin: Callable[[], Any]) -> None:
        """Call ``begin``, which launches a run and returns its reference, as soon as there is room for it."""
        self._waiting.append((name, begin))
        self._reap(timeout=0)
        self._fill()

    def finish(self, ended: Callable[[], None]) -> dict[str, str]:
        """Wait for all, telling of each; returns what went wrong, by name."""
        while self._running:
            self._reap()
            self._fill()
            ended()
        return self.failures

    def abandon(self) -> None:
        """Begin none any more, and end those that run."""
        import ray

        self._waiting.clear()
        for reference in self._running:
            ray.cancel(reference, force=True)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            name, begin = self._waiting.popleft()
            self._running[begin()] = name

    def _reap(self, timeout: float | None = None) -> None:
        import ray

        if not self._running:
            return
        for reference in ray.wait(list(self._running), timeout=timeout)[0]:
            name = self._running.pop(reference)
            if error := failure(reference):
                self.failures[name] = error


def failure(reference: Any) -> str | None:
    """What went wrong in a task that has ended, None where nothing did."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return user_message(error)
    return None


def _fit(
    config: RunConfig, run: RunDir, worker: WorkerFunction, loop: Mapping[str, Any], workers: int, max_failures: int
) -> None:
    """Ray task: one Train run from its beginning to its end."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from compass_ray.ray_session.torch_backend import DeviceAwareTorchConfig

    request = worker_request(config.resources)
    TorchTrainer(
        worker,
        train_loop_config=dict(loop),
        torch_config=DeviceAwareTorchConfig(),
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
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    ).fit()
