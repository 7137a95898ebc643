"""Freed memory is returned to the system, and requests leave no objects behind."""

from __future__ import annotations

import asyncio
import gc
import sys

import psutil
import pytest

from compass_ray.heap_trim import _find_malloc_trim, trim_heap
from tests.unit.serving.api.endpoint import Endpoint, chat_body

MIB = 1 << 20


@pytest.mark.skipif(_find_malloc_trim() is None, reason="this C library has no malloc_trim")
def test_freed_memory_below_memory_in_use_is_returned() -> None:
    blocks = [bytes(2000) for _ in range(50_000)]
    kept = blocks[::500]
    del blocks
    process = psutil.Process()
    before = process.memory_info().rss
    trim_heap()
    assert before - process.memory_info().rss > 50 * MIB
    assert len(kept) == 100


@pytest.mark.slow
def test_requests_leave_no_objects_behind() -> None:
    endpoint = Endpoint()

    async def send(count: int) -> int:
        async with endpoint.client() as client:
            for number in range(count):
                path, body = "/v1/chat/completions", chat_body(f"sw habari {number}", stream=number % 2 == 0)
                if number % 4 == 3:
                    path, body = "/v1/feedback", {"id": f"chatcmpl-{number:032x}", "rating": "good"}
                await client.post(path, json=body, headers={"x-conversation-id": f"c{number % 50}"})
                endpoint.backend.requests.clear()
                endpoint.traffic.observations.clear()
                endpoint.traffic.feedback.clear()
        gc.collect()
        return sys.getallocatedblocks()

    async def scenario() -> int:
        before = await send(4000)  # until every buffer of recent values is full
        return await send(4000) - before

    assert asyncio.run(scenario()) < 200, "more than one object in twenty requests stays"
