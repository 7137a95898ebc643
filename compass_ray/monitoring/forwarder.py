"""Forward answered prompts and feedback from the ingress to the monitor, without delaying replies.

`put` and `submit_feedback` never wait. A batch is sent again until it is acknowledged, so a restart of the monitor loses
nothing as long as the queue has room. Items beyond its capacity are dropped and counted. Feedback is delivered after the
prompts that were queued before it. No Ray: the calls are injected.
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
"""Time in seconds to fill a batch: embedding prompts one by one takes the cores that answer requests."""
_DRAIN_SECONDS = 5.0

Deliver = Callable[[list[Observation]], Awaitable[object]]
DeliverFeedback = Callable[[list[Feedback]], Awaitable[object]]


async def _discard(_: list[Feedback]) -> None:
    """Ignore feedback."""


class TrafficForwarder:
    """A bounded queue and the loop that delivers its items."""

    def __init__(
        self,
        deliver: Deliver,
        deliver_feedback: DeliverFeedback = _discard,
        *,
        capacity: int = CAPACITY,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Send batches with the given functions, which return once the batch is acknowledged; ``pause`` sleeps for seconds."""
        self.deliver = deliver
        self.deliver_feedback = deliver_feedback
        self.pause = pause
        self.queue: asyncio.Queue[Observation | Feedback] = asyncio.Queue(capacity)
        self.dropped = self.delivered = self.retries = self.pending = 0

    def put(self, observation: Observation) -> None:
        """Queue one observation, or drop and count it if the queue is full."""
        self._queue(observation)

    def submit_feedback(self, feedback: Feedback) -> None:
        """Queue one piece of feedback, or drop and count it if the queue is full."""
        self._queue(feedback)

    def counts(self) -> dict[str, int]:
        """Number of waiting, delivered and dropped items, and of retried batches."""
        return {
            "waiting": self.queue.qsize() + self.pending,
            "delivered": self.delivered,
            "dropped": self.dropped,
            "retries": self.retries,
        }

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            batch = await self._next_batch()
            self.pending = len(batch)
            await self._deliver(batch)
            self.delivered += len(batch)
            self.pending = 0

    async def drain(self) -> None:
        """Wait until all queued items are acknowledged, at most five seconds."""
        for _ in range(round(_DRAIN_SECONDS / _BATCH_DELAY_SECONDS)):
            if not self.counts()["waiting"]:
                return
            await self.pause(_BATCH_DELAY_SECONDS)

    def _queue(self, item: Observation | Feedback) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.dropped += 1

    async def _next_batch(self) -> list[Observation | Feedback]:
        batch = [await self.queue.get()]
        self.pending = 1
        await self.pause(_BATCH_DELAY_SECONDS)
        while len(batch) < _BATCH and not self.queue.empty():
            batch.append(self.queue.get_nowait())
        return batch

    async def _deliver(self, batch: list[Observation | Feedback]) -> None:
        delay = 0.1
        while True:
            try:
                await self._send(batch)
                return
            except Exception as error:
                self.retries += 1
                logger.warning(
                    "monitor: delivery of %d prompts or ratings failed, retrying in %.1f s: %s", len(batch), delay, error
                )
                await self.pause(delay)
                delay = min(2 * delay, _MAX_BACKOFF_SECONDS)

    async def _send(self, batch: list[Observation | Feedback]) -> None:
        if prompts := [item for item in batch if isinstance(item, Observation)]:
            await self.deliver(prompts)
        if feedback := [item for item in batch if isinstance(item, Feedback)]:
            await self.deliver_feedback(feedback)
