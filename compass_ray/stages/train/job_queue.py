"""The adapters that pooled workers take in turn, as one asynchronous Ray actor.

Key property: an adapter is handed out again when its worker has died or failed, at most so many times, and then reported,
so that one bad language keeps no other from being trained. Workers come in groups that Ray Train starts and ends as a
whole; a group that is gone cannot take anything any more. It holds names only; what was trained lies in the run.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

from compass_ray.stages.train.train_jobs import Job

_DIED = "its worker died"


class JobQueue:
    """Waiting jobs, jobs in flight and failures; ``attempts`` is how often a job is tried."""

    def __init__(self, attempts: int) -> None:
        """Open, with nothing in it."""
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
        """More to do."""
        await self._change(lambda: self._waiting.extend(jobs))

    async def close(self) -> None:
        """Nothing more will come."""
        await self._change(self._close)

    async def abandon(self, reason: str) -> None:
        """Nothing more is to be tried: what waits has failed for ``reason``."""
        await self._change(lambda: self._abandon(reason))

    async def join(self, group: str) -> bool:
        """A worker of ``group`` is there; False if it has nothing to do any more. The first of a group ends the one before."""
        if group != self._group:
            await self._change(lambda: self._begin(group))
        return not self._is_done()

    async def take(self, group: str) -> Job | None:
        """The next job, as soon as there is one; None when all is done, or another group has come."""
        async with self._changed:
            await self._changed.wait_for(lambda: group != self._group or bool(self._waiting) or self._is_done())
            if group != self._group or not self._waiting:
                return None
            job = self._waiting.popleft()
            self._in_flight.append(job)
            return job

    async def finished(self, job: Job) -> None:
        """The job's adapter is whole."""
        await self._change(lambda: self._finish(job))

    async def failed(self, job: Job, reason: str, *, final: bool) -> None:
        """The job failed: it is tried again unless that is ``final`` or was the last time.

        After a failure that is not final the worker ends itself, for a process that is as new.
        """
        await self._change(lambda: self._fail(job, reason, final))

    async def ended(self, seen: int) -> int:
        """How many jobs are finished or given up, as soon as they are more than ``seen`` or all is done."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._num_done() > seen or self._is_done())
            return self._num_done()

    async def failures(self) -> dict[Job, str]:
        """The jobs that were given up, and why."""
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
            self._abandon(f"the workers died {self._attempts} times before they could take anything")

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
        """At the end of the queue, so that a job that kills its worker delays the others least."""
        self._tries[job] += counted
        if self._tries[job] < self._attempts:
            self._waiting.append(job)
        else:
            self._failures[job] = f"{reason} ({self._attempts} attempts)"

    def _num_done(self) -> int:
        return self._finished + len(self._failures)

    def _is_done(self) -> bool:
        return self._closed and not self._waiting and not self._in_flight
