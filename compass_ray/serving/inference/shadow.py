"""Shadow requests: copies of answered requests, sent to a shadow version. No client sees their responses.

A copy is sent only after the client has its response, and with limited concurrency. Excess copies are dropped, so shadows never
queue. Results go only to the statistics. COMPASS, section 3.3.
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
    """Sends copies to shadow versions in the background."""

    def __init__(
        self,
        backend: InferenceBackend,
        statistics: RequestStatistics,
        clock: Callable[[], float],
        *,
        timeout_s: float,
        max_concurrent: int = MAX_CONCURRENT,
    ) -> None:
        """At most ``max_concurrent`` copies at once; each is cancelled after ``timeout_s``."""
        self.backend = backend
        self.statistics = statistics
        self.clock = clock
        self.timeout_s = timeout_s
        self.max_concurrent = max_concurrent
        self.tasks: set[asyncio.Task[None]] = set()

    def submit(self, response: InferenceResponse, max_tokens: int, version: AdapterName) -> None:
        """Let ``version`` answer a copy of a request, unless it gave the response or too many copies are active."""
        if len(self.tasks) >= self.max_concurrent or response.output.adapter == str(version):
            return
        request = replace(
            response.request.to_generation_request(response.route, max_tokens), adapter=str(version), blend=None, logprobs=None
        )
        task = asyncio.create_task(self._answer(request, str(version)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """Cancel the active copies."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _answer(self, request: GenerationRequest, adapter: str) -> None:
        started_at, nll, failed = self.clock(), None, False
        try:
            async with asyncio.timeout(self.timeout_s):
                nll = (await self.backend.answer(request)).mean_nll
        except Exception as error:
            logger.warning("ingress: shadow request failed adapter=%s: %s", adapter, type(error).__name__)
            failed = True
        self.statistics.record_shadow(adapter=adapter, mean_nll=nll, seconds=self.clock() - started_at, failed=failed)
