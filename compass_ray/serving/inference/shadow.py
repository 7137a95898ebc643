"""Copies of answered requests for versions on trial that no client sees.

Key property: a copy is asked for only once the client has its reply, and only so many at once; what does not fit is left out,
so shadows never queue. What comes of a copy goes to the statistics alone. COMPASS, section 3.3. It chooses no version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from compass_ray.registry import AdapterName
from compass_ray.serving.inference.backend import GenerationRequest, InferenceBackend
from compass_ray.serving.inference.requests import InferenceResponse
from compass_ray.serving.metrics.request_stats import RequestStatistics

logger = logging.getLogger(__name__)
MAX_CONCURRENT = 4


class ShadowRunner:
    """Asks shadow versions in the background."""

    def __init__(
        self,
        backend: InferenceBackend,
        statistics: RequestStatistics,
        clock: Callable[[], float],
        *,
        seconds: float,
        most: int = MAX_CONCURRENT,
    ) -> None:
        """At most ``most`` copies at once, each given up after ``seconds``."""
        self.backend = backend
        self.statistics = statistics
        self.clock = clock
        self.seconds = seconds
        self.most = most
        self.tasks: set[asyncio.Task[None]] = set()

    def submit(self, reply: InferenceResponse, most_tokens: int, version: AdapterName) -> None:
        """Let ``version`` answer a copy of a request, unless it was the one that answered or too many are under way."""
        if len(self.tasks) >= self.most or reply.output.adapter == str(version):
            return
        order = replace(
            reply.request.to_generation_request(reply.route, most_tokens), adapter=str(version), blend=None, logprobs=None
        )
        task = asyncio.create_task(self._answer(order, str(version)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _answer(self, order: GenerationRequest, adapter: str) -> None:
        began, nll, failed = self.clock(), None, False
        try:
            async with asyncio.timeout(self.seconds):
                nll = (await self.backend.answer(order)).mean_nll
        except Exception as error:
            logger.warning("the shadow %s did not answer a copy: %s", adapter, type(error).__name__)
            failed = True
        self.statistics.record_shadow(adapter=adapter, mean_nll=nll, seconds=self.clock() - began, failed=failed)
