"""Schedulers of training jobs: one Ray Train run per language, or one run whose workers take jobs from a queue.

Key property: jobs can start while other languages are still being selected. Concurrency is limited by the maximum size of
the cluster, not its present size, so that the autoscaler sees the demand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.stages.train.job_queue import JobQueue
from compass_ray.stages.train.train_jobs import Job
from compass_ray.stages.train.workers import train_assigned, train_from_queue

_MAX_CONCURRENT_RUNS = 16
"""Each Train run has processes of a few hundred MB on the head node."""

OnProgress = Callable[[], None]
"""Called when adapters may have been completed."""


class JobScheduler(Protocol):
    """Trains jobs as they arrive."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Start these jobs, all of one language."""

    def finish(self, on_progress: OnProgress) -> dict[str, str]:
        """Wait for all started jobs; return the error messages by language."""

    def abandon(self) -> None:
        """Cancel everything without waiting."""


class PerLanguageScheduler:
    """One Train run per language, several at the same time."""

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        """Start nothing yet.

        Raises:
            ConfigError: the cluster can never hold all workers of one adapter at the same time.
        """
        self._config, self._run, self._workers = config, run, config.resources.adapter_workers
        ray_session.require_capacity(config.resources, "adapter_workers", self._workers)
        self._runs = ray_session.TrainRuns(max_concurrent_runs(config))

    def start(self, jobs: Sequence[Job]) -> None:
        """Start a run for the language as soon as a slot is free."""
        begin = partial(ray_session.launch, self._config, self._run, train_assigned, {"jobs": list(jobs)}, workers=self._workers)
        self._runs.start(jobs[0].language, begin)

    def finish(self, on_progress: OnProgress) -> dict[str, str]:
        """Wait for all runs."""
        return self._runs.finish(on_progress)

    def abandon(self) -> None:
        """Start no more runs, and cancel active ones."""
        self._runs.abandon()


class PooledScheduler:
    """One Train run whose workers keep the base model loaded and take jobs from a queue."""

    def __init__(self, config: RunConfig, run: RunDir, expected: int) -> None:
        """Open the queue for at most ``expected`` jobs."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._config, self._run = config, run
        self._workers = ray_session.max_concurrent_workers(config.resources, min(config.resources.train_workers, expected))
        # Workers that wait for selections must leave CPUs for the selection tasks.
        self._has_spare_cpus = ray_session.max_fitting_requests({"CPU": config.resources.cpus_per_worker}) > self._workers
        # On the driver's node, so that the loss of another node does not end the queue.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(JobQueue).options(num_cpus=0, scheduling_strategy=here, max_concurrency=1000)
        self._queue = actor.remote(config.resources.max_failures + 1)
        self._train: Any = None

    def start(self, jobs: Sequence[Job]) -> None:
        """Add the jobs to the queue and start workers."""
        import ray

        ray.get(self._queue.put.remote(list(jobs)))
        if self._has_spare_cpus:
            self._start_workers()

    def finish(self, on_progress: OnProgress) -> dict[str, str]:
        """Close the queue and wait until it is empty."""
        import ray

        ray.get(self._queue.close.remote())
        self._start_workers()
        seen, ended = -1, 0
        while ended > seen:
            seen, reply = ended, self._queue.ended.remote(ended)
            ray.wait([reply, self._train])
            self._abandon_if_ended()
            ended = ray.get(reply)
            on_progress()
        return self._collect_failures()

    def abandon(self) -> None:
        """Stop the workers and the queue."""
        import ray

        if self._train is not None:
            ray.cancel(self._train, force=True)
        ray.kill(self._queue)

    def _start_workers(self) -> None:
        if self._train is None:
            # Unlimited restarts: the queue counts the failures of each job.
            arguments = (self._config, self._run, train_from_queue, {"queue": self._queue})
            self._train = ray_session.launch(*arguments, workers=self._workers, max_failures=-1)

    def _abandon_if_ended(self) -> None:
        """Give up the remaining jobs if the Train run has ended."""
        import ray

        if ray.wait([self._train], timeout=0)[0]:
            reason = ray_session.failure(self._train) or "the Train run ended before it"
            ray.get(self._queue.abandon.remote(reason))

    def _collect_failures(self) -> dict[str, str]:
        import ray

        failures: dict[str, set[str]] = defaultdict(set)
        for job, reason in ray.get(self._queue.failures.remote()).items():
            failures[job.language].add(reason)
        ray.wait([self._train])  # until its workers have released their resources
        ray.kill(self._queue)
        return {language: "; ".join(sorted(reasons)) for language, reasons in failures.items()}


def max_concurrent_runs(config: RunConfig) -> int:
    """Number of Train runs that may be active at the same time."""
    resources = config.resources
    wanted = min(resources.train_concurrency, _MAX_CONCURRENT_RUNS)
    return max(1, ray_session.max_concurrent_workers(resources, wanted * resources.adapter_workers) // resources.adapter_workers)
