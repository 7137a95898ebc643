"""Ray Train runs: start workers, wait for them, and restart them after failures.

Key property: workers keep their progress in the run directory, so a restarted run resumes there. Ray Train's own
checkpoints are not used.
"""

from __future__ import annotations

import sys
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from compass_ray.ray_session.cluster import read_capacity
from compass_ray.ray_session.errors import user_message

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import Resources, RunConfig

WorkerFunction = Callable[[Mapping[str, Any]], None]
"""The function that a Train run calls in each worker."""


def worker_request(resources: Resources) -> dict[str, float]:
    """Resources that one worker requests, by Ray's names."""
    return resources.resources_per_worker()


def max_concurrent_workers(resources: Resources, wanted: int) -> int:
    """How many of the wanted workers fit into the fully grown cluster; at least one.

    The limit is the maximum size, not the present size, so that the autoscaler sees the demand.
    """
    return max(1, min(wanted, max_fitting_requests(worker_request(resources))))


def require_capacity(resources: Resources, setting: str, workers: int) -> None:
    """Check that the cluster can hold all workers of a training job at the same time.

    Raises:
        ConfigError: the cluster can never hold as many workers as ``setting`` asks for.
    """
    from compass_ray.config import ConfigError

    fits = max_fitting_requests(worker_request(resources))
    if fits < workers:
        raise ConfigError(
            f"resources.{setting} is {workers}, but this cluster can hold only {fits} workers; lower it, lower the request of a "
            f"worker (resources.cpus_per_worker, resources.gpus_per_worker), or add nodes to the cluster"
        )


def require_worker_capacity(resources: Resources, what: str) -> None:
    """Check that some node of the cluster can hold one worker.

    Raises:
        ConfigError: no node that the cluster has or may start offers the requested resources.
    """
    from compass_ray.config import ConfigError

    request = worker_request(resources)
    if max_fitting_requests(request) < 1:
        requested = ", ".join(f"{name} {amount:g}" for name, amount in request.items())
        raise ConfigError(
            f"{what} requests {requested} on one node, and this cluster has no such node and cannot start one; lower "
            f"resources.cpus_per_worker, gpus_per_worker or worker_resources, or add such a node to the cluster"
        )


def max_fitting_requests(request: Mapping[str, float]) -> int:
    """How many such requests the fully grown cluster can hold; `sys.maxsize` if that is unknown."""
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
    """Start a Ray Train run of ``worker`` and return its object reference.

    ``worker`` receives ``loop``, the URI of the run and its configuration. ``max_failures`` defaults to the resources'
    value; -1 means unlimited. A task on the driver's node waits for the run: a thread of the driver could not be stopped.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # One call per process: an idle process would keep the run's controller alive.
    task = ray.remote(max_calls=1)(_fit).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    limit = config.resources.max_failures if max_failures is None else max_failures
    return task.remote(config, run, worker, {**loop, "uri": run.uri, "config": config.model_dump(mode="json")}, workers, limit)


def fit(config: RunConfig, run: RunDir, worker: WorkerFunction, loop: Mapping[str, Any], *, workers: int) -> None:
    """Start a Ray Train run as `launch` does, and wait for it.

    Raises:
        ray.exceptions.RayTaskError: workers failed more often than ``resources.max_failures``.
    """
    import ray

    ray.get(launch(config, run, worker, loop, workers=workers))


class TrainRuns:
    """A queue of named Ray Train runs; a limited number runs at the same time."""

    def __init__(self, at_once: int) -> None:
        """Create an empty queue."""
        self._at_once = at_once
        self._waiting: deque[tuple[str, Callable[[], Any]]] = deque()
        self._running: dict[Any, str] = {}
        self.failures: dict[str, str] = {}
        """Error message of each failed run, by name."""

    def start(self, name: str, begin: Callable[[], Any]) -> None:
        """Call ``begin`` as soon as a slot is free; it launches a run and returns its reference."""
        self._waiting.append((name, begin))
        self._reap(timeout=0)
        self._fill()

    def finish(self, ended: Callable[[], None]) -> dict[str, str]:
        """Wait for all runs, call ``ended`` after each, and return the error messages by name."""
        while self._running:
            self._reap()
            self._fill()
            ended()
        return self.failures

    def abandon(self) -> None:
        """Drop waiting runs and cancel active ones."""
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
    """Error message of a finished task; None if it succeeded."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return user_message(error)
    return None


def _fit(
    config: RunConfig, run: RunDir, worker: WorkerFunction, loop: Mapping[str, Any], workers: int, max_failures: int
) -> None:
    """Ray task: one complete Train run."""
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
