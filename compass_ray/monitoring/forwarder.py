"""Forward answered prompts and feedback from the ingress to the monitor, without delaying replies.

`put` and `submit_feedback` never wait. A batch is sent again until it is acknowledged, so a restart of the monitor loses
nothing as long as the queue has room. Number and bytes of queued prompts are bounded, and those of feedback by themselves.
If there are too many, the client with most in the queue loses its newest. It is counted. Feedback is delivered after the
prompts that were queued before it. No Ray: the calls are injected.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count

from compass_ray.monitoring.client_quota import ClientQuota
from compass_ray.monitoring.observations import MAX_PROMPT_CHARS, Feedback, Observation

logger = logging.getLogger(__name__)

CAPACITY, MAX_BYTES = 5000, 32 * 2**20
"""Number of queued items of one kind, and their bytes in memory."""
_BATCH = 64
_MAX_BACKOFF_SECONDS = 5.0
_BATCH_DELAY_SECONDS = 0.2
"""Time in seconds to fill a batch: embedding prompts one by one takes the cores that answer requests."""
_DRAIN_SECONDS = 5.0
_ITEM_BYTES = 500
"""Bytes of an item without its texts."""

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
        max_bytes: int = MAX_BYTES,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Send batches with the given functions, which return once the batch is acknowledged; ``pause`` sleeps for seconds.

        ``capacity`` and ``max_bytes`` bound the queued prompts, and the queued feedback by itself.
        """
        self.deliver = deliver
        self.deliver_feedback = deliver_feedback
        self.pause = pause
        self._items: OrderedDict[int, Observation | Feedback] = OrderedDict()
        self._quotas = {kind: ClientQuota[int](capacity, max_bytes, evict_newest=True) for kind in (Observation, Feedback)}
        self._numbers, self._filled = count(), asyncio.Event()
        self.dropped = self.delivered = self.retries = self.pending = 0

    def put(self, observation: Observation) -> None:
        """Queue one observation with the part of its prompt that is stored. A full queue drops an item and counts it."""
        if len(observation.prompt) > MAX_PROMPT_CHARS:
            observation = replace(observation, prompt=observation.prompt[:MAX_PROMPT_CHARS])
        self._queue(observation, sys.getsizeof(observation.prompt))

    def submit_feedback(self, feedback: Feedback) -> None:
        """Queue one piece of feedback. A full queue drops an item and counts it."""
        self._queue(feedback, sys.getsizeof(feedback.correction) + sys.getsizeof(feedback.comment))

    def counts(self) -> dict[str, int]:
        """Number of waiting, delivered and dropped items, and of retried batches."""
        return {
            "waiting": len(self._items) + self.pending,
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

    def _queue(self, item: Observation | Feedback, text_bytes: int) -> None:
        number = next(self._numbers)
        self._items[number] = item
        for dropped in self._quotas[type(item)].add(number, item.client or item.key or "", text_bytes + _ITEM_BYTES):
            del self._items[dropped]
            self.dropped += 1
        self._filled.set()

    async def _next_batch(self) -> list[Observation | Feedback]:
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        await self.pause(_BATCH_DELAY_SECONDS)
        return [self._take_oldest() for _ in range(min(_BATCH, len(self._items)))]

    def _take_oldest(self) -> Observation | Feedback:
        number, item = self._items.popitem(last=False)
        self._quotas[type(item)].remove(number)
        return item

    async def _deliver(self, batch: list[Observation | Feedback]) -> None:
        delay = 0.1
        while True:
            try:
                await self._send(batch)
                return
            except Exception as error:
                self.retries += 1
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]  # Ray's text begins with a traceback
                logger.warning(
                    "monitor: delivery of %d prompts or ratings failed, retrying in %.1f s: %s", len(batch), delay, reason
                )
                await self.pause(delay)
                delay = min(2 * delay, _MAX_BACKOFF_SECONDS)

    async def _send(self, batch: list[Observation | Feedback]) -> None:
        if prompts := [item for item in batch if isinstance(item, Observation)]:
            await self.deliver(prompts)
        if feedback := [item for item in batch if isinstance(item, Feedback)]:
            await self.deliver_feedback(feedback)
