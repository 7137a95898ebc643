"""How adapters are spread over Ray Train runs: one run a language, or one run whose workers take languages in turn.

Key property: jobs may be started while others are still being selected. A number at once is bounded by what the cluster
can grow to, not by what it is now, so that the autoscaler sees what is wanted.
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
"""Each Train run keeps processes of some hundred MB on the head."""

OnProgress = Callable[[], None]
"""Called whenever adapters may have become whole."""


class JobScheduler(Protocol):
    """Trains jobs as they come."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin with these jobs, all of one language."""

    def finish(self, told: OnProgress) -> dict[str, str]:
        """Wait for everything that was started; returns what went wrong, by language."""

    def abandon(self) -> None:
        """Let go of everything without waiting."""


class PerLanguageScheduler:
    """One Train run a language, several at once."""

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        """Nothing is started yet.

        Raises:
            ConfigError: the workers of one adapter can never be there together.
        """
        self._config, self._run, self._workers = config, run, config.resources.adapter_workers
        ray_session.require_capacity(config.resources, "adapter_workers", self._workers)
        self._runs = ray_session.TrainRuns(max_concurrent_runs(config))

    def start(self, jobs: Sequence[Job]) -> None:
        """Give the language a run of its own, as soon as there is room for one."""
        begin = partial(ray_session.launch, self._config, self._run, train_assigned, {"jobs": list(jobs)}, workers=self._workers)
        self._runs.start(jobs[0].language, begin)

    def finish(self, told: OnProgress) -> dict[str, str]:
        """Wait for all runs."""
        return self._runs.finish(told)

    def abandon(self) -> None:
        """Start no run any more, and end those under way."""
        self._runs.abandon()


class PooledScheduler:
    """One Train run whose workers keep the base and take jobs from a queue."""

    def __init__(self, config: RunConfig, run: RunDir, expected: int) -> None:
        """Open the queue; ``expected`` jobs are to come at most."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._config, self._run = config, run
        self._workers = ray_session.max_concurrent_workers(config.resources, min(config.resources.train_workers, expected))
        # Workers that wait for selections must leave room for the tasks that make them.
        self._has_spare_cpus = ray_session.max_fitting_requests({"CPU": config.resources.cpus_per_worker}) > self._workers
        # It shares the driver's fate, and no other node's.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(JobQueue).options(num_cpus=0, scheduling_strategy=here, max_concurrency=1000)
        self._queue = actor.remote(config.resources.max_failures + 1)
        self._train: Any = None

    def start(self, jobs: Sequence[Job]) -> None:
        """Put the jobs in the queue, and workers before it."""
        import ray

        ray.get(self._queue.put.remote(list(jobs)))
        if self._has_spare_cpus:
            self._start_workers()

    def finish(self, told: OnProgress) -> dict[str, str]:
        """Close the queue and wait until it is empty."""
        import ray

        ray.get(self._queue.close.remote())
        self._start_workers()
        seen, ended = -1, 0
        while ended > seen:
            seen, asked = ended, self._queue.ended.remote(ended)
            ray.wait([asked, self._train])
            self._abandon_if_ended()
            ended = ray.get(asked)
            told()
        return self._collect_failures()

    def abandon(self) -> None:
        """Take no job any more."""
        import ray

        if self._train is not None:
            ray.cancel(self._train, force=True)
        ray.kill(self._queue)

    def _start_workers(self) -> None:
        if self._train is None:
            # Without bound: the queue counts failures, job by job.
            arguments = (self._config, self._run, train_from_queue, {"queue": self._queue})
            self._train = ray_session.launch(*arguments, workers=self._workers, max_failures=-1)

    def _abandon_if_ended(self) -> None:
        """A Train run that has ended takes nothing any more; where all is done there is nothing to give up."""
        import ray

        if ray.wait([self._train], timeout=0)[0]:
            reason = ray_session.failure(self._train) or "the Train run ended before it"
            ray.get(self._queue.abandon.remote(reason))

    def _collect_failures(self) -> dict[str, str]:
        import ray

        failures: dict[str, set[str]] = defaultdict(set)
        for job, reason in ray.get(self._queue.failures.remote()).items():
            failures[job.language].add(reason)
        ray.wait([self._train])  # until its workers have let go of what they held
        ray.kill(self._queue)
        return {language: "; ".join(sorted(reasons)) for language, reasons in failures.items()}


def max_concurrent_runs(config: RunConfig) -> int:
    """Train runs that may be under way together."""
    resources = config.resources
    wanted = min(resources.train_concurrency, _MAX_CONCURRENT_RUNS)
    return max(1, ray_session.max_concurrent_workers(resources, wanted * resources.adapter_workers) // resources.adapter_workers)
