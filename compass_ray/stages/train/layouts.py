"""How adapters are spread over Ray Train runs: one run a language, or one run whose workers take languages in turn.

Key property: jobs may be started while others are still being selected. A number at once is bounded by what the cluster
can grow to, not by what it is now, so that the autoscaler sees what is wanted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.stages.train.jobs import Job
from compass_ray.stages.train.queue import JobQueue
from compass_ray.stages.train.workers import train_from_queue, train_some

_RUNS_AT_ONCE = 16
"""Each Train run keeps processes of some hundred MB on the head."""

Told = Callable[[], None]
"""Called whenever adapters may have become whole."""


class Layout(Protocol):
    """Trains jobs as they come."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin with these jobs, all of one language."""

    def finish(self, told: Told) -> dict[str, str]:
        """Wait for everything that was started; returns what went wrong, by language."""

    def abandon(self) -> None:
        """Let go of everything without waiting."""


class PerLanguage:
    """One Train run a language, several at once."""

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        """Nothing is started yet."""
        self._config, self._run = config, run
        self._pool = ThreadPoolExecutor(runs_at_once(config))
        self._futures: dict[Future[None], str] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        """Give the language a run of its own, as soon as there is room for one."""
        self._futures[self._pool.submit(self._fit, jobs)] = jobs[0].language

    def finish(self, told: Told) -> dict[str, str]:
        """Wait for all runs."""
        waiting, failures = set(self._futures), dict[str, str]()
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            failures |= {self._futures[f]: ray_session.told(error) for f in done if (error := f.exception())}
            told()
        self._pool.shutdown()
        return failures

    def abandon(self) -> None:
        """Start no run any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fit(self, jobs: Sequence[Job]) -> None:
        ray_session.fit(
            self._config,
            self._run,
            train_some,
            {"jobs": list(jobs)},
            workers=self._config.resources.adapter_workers,
        )


class Pooled:
    """One Train run whose workers keep the base and take jobs from a queue."""

    def __init__(self, config: RunConfig, run: RunDir, expected: int) -> None:
        """Open the queue; ``expected`` jobs are to come at most."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._config, self._run = config, run
        self._workers = ray_session.workers_at_once(config.resources, min(config.resources.train_workers, expected))
        # Workers that wait for selections must leave room for the tasks that make them.
        self._beside = ray_session.room({"CPU": config.resources.cpus_per_worker}) > self._workers
        # It shares the driver's fate, and no other node's.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(JobQueue).options(num_cpus=0, scheduling_strategy=here, max_concurrency=1000)
        self._queue = actor.remote(config.resources.max_failures + 1)
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[None] | None = None

    def start(self, jobs: Sequence[Job]) -> None:
        """Put the jobs in the queue, and workers before it."""
        import ray

        ray.get(self._queue.put.remote(list(jobs)))
        if self._beside:
            self._begin()

    def finish(self, told: Told) -> dict[str, str]:
        """Close the queue and wait until it is empty."""
        import ray

        ray.get(self._queue.close.remote())
        self._begin().add_done_callback(lambda _: self._queue.abandon.remote("the Train run ended before it"))
        seen, ended = -1, 0
        while ended > seen:
            seen, ended = ended, ray.get(self._queue.ended.remote(ended))
            told()
        return self._concluded()

    def abandon(self) -> None:
        """Take no job any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._queue.abandon.remote("the run was ended")

    def _begin(self) -> Future[None]:
        if self._future is None:
            # The queue counts failures, job by job.
            arguments = (self._config, self._run, train_from_queue, {"queue": self._queue})
            self._future = self._pool.submit(ray_session.fit, *arguments, workers=self._workers, max_failures=-1)
        return self._future

    def _concluded(self) -> dict[str, str]:
        import ray

        self._pool.shutdown()
        error = self._begin().exception()
        failures: dict[str, set[str]] = defaultdict(set)
        for job, reason in ray.get(self._queue.failures.remote()).items():
            failures[job.language].add(ray_session.told(error) if error else reason)
        ray.kill(self._queue)
        return {language: "; ".join(sorted(reasons)) for language, reasons in failures.items()}


def runs_at_once(config: RunConfig) -> int:
    """Train runs that may be under way together."""
    resources = config.resources
    wanted = min(resources.train_concurrency, _RUNS_AT_ONCE)
    return max(1, ray_session.workers_at_once(resources, wanted * resources.adapter_workers) // resources.adapter_workers)
