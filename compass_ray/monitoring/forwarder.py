"""Answered prompts and feedback on their way from the ingress to the monitor, off the path of the reply.

Key property: `put` and `rate` never wait; a batch is sent again until it is acknowledged, so a restarting monitor loses nothing
that still fits the queue. What does not fit is dropped and counted. Feedback never overtakes the prompts taken before it. It
knows no Ray: it calls what it is given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from compass_ray.monitoring.observations import Feedback, Observation

logger = logging.getLogger(__name__)

CAPACITY = 5000
_BATCH = 64
_MAX_BACKOFF_SECONDS = 5.0
_BATCH_DELAY_SECONDS = 0.2
"""Seconds a prompt waits for company: embedding them one by one takes the cores that answer requests."""
_DRAIN_SECONDS = 5.0

Deliver = Callable[[list[Observation]], Awaitable[object]]
DeliverFeedback = Callable[[list[Feedback]], Awaitable[object]]


async def _discard(_: list[Feedback]) -> None:
    """Where feedback goes that nobody takes."""


class TrafficForwarder:
    """A bounded queue and the loop that empties it."""

    def __init__(
        self,
        deliver: Deliver,
        deliver_feedback: DeliverFeedback = _discard,
        *,
        capacity: int = CAPACITY,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Send batches by what is given, which return when they are acknowledged; ``pause`` waits seconds."""
        self.deliver = deliver
        self.deliver_feedback = deliver_feedback
        self.pause = pause
        self.queue: asyncio.Queue[Observation | Feedback] = asyncio.Queue(capacity)
        self.dropped = self.delivered = self.retries = self.pending = 0

    def put(self, observation: Observation) -> None:
        """Take one observation, or drop and count it where the queue is full."""
        self._queue(observation)

    def submit_feedback(self, feedback: Feedback) -> None:
        """Take one piece of feedback, or drop and count it where the queue is full."""
        self._queue(feedback)

    def counts(self) -> dict[str, int]:
        """How many wait, were acknowledged, were dropped, and how often a batch was sent again."""
        return {
            "waiting": self.queue.qsize() + self.pending,
            "delivered": self.delivered,
            "dropped": self.dropped,
            "retries": self.retries,
        }

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            batch = await self._take()
            self.pending = len(batch)
            await self._deliver(batch)
            self.delivered += len(batch)
            self.pending = 0

    async def drain(self) -> None:
        """Wait until everything taken so far was acknowledged, or five seconds have passed."""
        for _ in range(round(_DRAIN_SECONDS / _BATCH_DELAY_SECONDS)):
            if not self.counts()["waiting"]:
                return
            await self.pause(_BATCH_DELAY_SECONDS)

    def _queue(self, one: Observation | Feedback) -> None:
        try:
            self.queue.put_nowait(one)
        except asyncio.QueueFull:
            self.dropped += 1

    async def _take(self) -> list[Observation | Feedback]:
        batch = [await self.queue.get()]
        self.pending = 1
        await self.pause(_BATCH_DELAY_SECONDS)
        while len(batch) < _BATCH and not self.queue.empty():
            batch.append(self.queue.get_nowait())
        return batch

    async def _deliver(self, batch: list[Observation | Feedback]) -> None:
        wait = 0.1
        while True:
            try:
                await self._send(batch)
                return
            except Exception as error:
                self.retries += 1
                logger.warning("the monitor did not take %d prompts or ratings (%s); sent again", len(batch), error)
                await self.pause(wait)
                wait = min(2 * wait, _MAX_BACKOFF_SECONDS)

    async def _send(self, batch: list[Observation | Feedback]) -> None:
        if prompts := [one for one in batch if isinstance(one, Observation)]:
            await self.deliver(prompts)
        if feedback := [one for one in batch if isinstance(one, Feedback)]:
            await self.deliver_feedback(feedback)
