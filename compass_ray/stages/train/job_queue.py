"""Queue of training jobs for pooled workers, as one asynchronous Ray actor.

Key property: a job is retried a limited number of times after its worker dies or fails, and is then reported. One bad
language therefore never blocks another. Ray Train starts and ends workers in groups; a group that was replaced gets no
more jobs. The queue holds names only; the trained state is in the run directory.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

from compass_ray.stages.train.train_jobs import Job

_DIED = "its worker died"


class JobQueue:
    """Waiting jobs, jobs in flight and failures; ``attempts`` is the maximum number of attempts per job."""

    def __init__(self, attempts: int) -> None:
        """Create an empty, open queue."""
        self._attempts = attempts
        self._waiting: deque[Job] = deque()
        self._in_flight: list[Job] = []
        self._tries: Counter[Job] = Counter()
        self._failures: dict[Job, str] = {}
        self._finished = 0
        self._closed = False
        self._group: str | None = None
        self._groups_without_job = 0
        self._explained = False
        self._changed = asyncio.Condition()

    async def put(self, jobs: Sequence[Job]) -> None:
        """Add jobs."""
        await self._change(lambda: self._waiting.extend(jobs))

    async def close(self) -> None:
        """Announce that no more jobs will be added."""
        await self._change(self._close)

    async def abandon(self, reason: str) -> None:
        """Give up all remaining jobs with ``reason``."""
        await self._change(lambda: self._abandon(reason))

    async def join(self, group: str) -> bool:
        """Register a worker of ``group``; False if no jobs remain. The first worker of a group replaces the previous group."""
        if group != self._group:
            await self._change(lambda: self._begin(group))
        return not self._is_done()

    async def take(self, group: str) -> Job | None:
        """Wait for the next job; None if all jobs are done or the group was replaced."""
        async with self._changed:
            await self._changed.wait_for(lambda: group != self._group or bool(self._waiting) or self._is_done())
            if group != self._group or not self._waiting:
                return None
            job = self._waiting.popleft()
            self._in_flight.append(job)
            return job

    async def finished(self, job: Job) -> None:
        """Report that the adapter of the job is complete."""
        await self._change(lambda: self._finish(job))

    async def failed(self, job: Job, reason: str, *, final: bool) -> None:
        """Report a failure; the job is retried unless ``final`` is set or no attempts remain.

        After a failure that is not final, the worker exits and a new process takes its place.
        """
        await self._change(lambda: self._fail(job, reason, final))

    async def ended(self, seen: int) -> int:
        """Number of finished and failed jobs, as soon as it exceeds ``seen`` or all jobs are done."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._num_done() > seen or self._is_done())
            return self._num_done()

    async def failures(self) -> dict[Job, str]:
        """Reason of each failed job."""
        return dict(self._failures)

    async def _change(self, apply: Callable[[], None]) -> None:
        async with self._changed:
            apply()
            self._changed.notify_all()

    def _close(self) -> None:
        self._closed = True

    def _abandon(self, reason: str) -> None:
        self._failures |= dict.fromkeys([*self._waiting, *self._in_flight], reason)
        self._waiting.clear()
        self._in_flight.clear()
        self._closed = True

    def _begin(self, group: str) -> None:
        self._groups_without_job = 0 if self._in_flight else self._groups_without_job + 1
        for job in self._in_flight:
            self._retry(job, _DIED, counted=not self._explained)
        self._in_flight.clear()
        self._explained = False
        self._group = group
        if self._groups_without_job > self._attempts:
            self._abandon(f"the workers died {self._attempts} times before they took a job")

    def _finish(self, job: Job) -> None:
        if job in self._in_flight:
            self._in_flight.remove(job)
            self._finished += 1

    def _fail(self, job: Job, reason: str, final: bool) -> None:
        if job not in self._in_flight:
            return
        self._in_flight.remove(job)
        self._explained = self._explained or not final
        if final:
            self._failures[job] = reason
        else:
            self._retry(job, reason, counted=True)

    def _retry(self, job: Job, reason: str, *, counted: bool) -> None:
        """Requeue at the end, so that a job that kills its worker delays the other jobs least."""
        self._tries[job] += counted
        if self._tries[job] < self._attempts:
            self._waiting.append(job)
        else:
            self._failures[job] = f"{reason} ({self._attempts} attempts)"

    def _num_done(self) -> int:
        return self._finished + len(self._failures)

    def _is_done(self) -> bool:
        return self._closed and not self._waiting and not self._in_flight
