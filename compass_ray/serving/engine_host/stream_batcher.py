"""Transfer of one request's output from the engine thread to an event loop, with batching of deltas.

The first delta is forwarded immediately. After that, while other streams are active, deltas are batched for up to 250 ms,
because a message between processes costs as much as many tokens in it. Deltas that arrive together wake the loop once. The end
of a response is never delayed. Knows no Ray and no engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from compass_ray.engine.requests import GenerationOutput, OutputDelta

MAX_MESSAGES_PER_SECOND = 100
"""For all streams of a process together. Measured: a message costs 0.4 ms in the generating process, 0.9 ms in others."""
MAX_FLUSH_INTERVAL_S = 0.25
"""Maximum time between two messages of one stream, so that readers see steady progress."""


def flush_interval(streams: int) -> float:
    """Seconds that each of ``streams`` active streams batches its deltas. A single stream never waits.

    >>> flush_interval(1), flush_interval(11), flush_interval(1000)
    (0.0, 0.1, 0.25)
    """
    return min((streams - 1) / MAX_MESSAGES_PER_SECOND, MAX_FLUSH_INTERVAL_S)


class FinalListener:
    """Receives only the complete response."""

    def __init__(self) -> None:
        """Bind to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.output: asyncio.Future[GenerationOutput] = self._loop.create_future()

    def on_output(self, output: OutputDelta | GenerationOutput | Exception) -> None:
        """Called in any thread."""
        if not isinstance(output, OutputDelta):
            self._loop.call_soon_threadsafe(self._end, output)

    def _end(self, result: GenerationOutput | Exception) -> None:
        if self.output.done():
            return
        if isinstance(result, Exception):
            self.output.set_exception(result)
        else:
            self.output.set_result(result)


class StreamListener:
    """Receives every delta."""

    def __init__(self) -> None:
        """Bind to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._pending: deque[OutputDelta | GenerationOutput | Exception] = deque()
        self._available, self._ended = asyncio.Event(), asyncio.Event()
        self._wakeup_scheduled = False

    def on_output(self, output: OutputDelta | GenerationOutput | Exception) -> None:
        """Called in one other thread."""
        self._pending.append(output)
        if not isinstance(output, OutputDelta):
            self._loop.call_soon_threadsafe(self._end)
        elif not self._wakeup_scheduled:
            self._wakeup_scheduled = True
            self._loop.call_soon_threadsafe(self._available.set)

    async def outputs(self, pause: Callable[[], float]) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """The deltas, merged if several are pending, then the complete response. ``pause`` returns the seconds between two."""
        while True:
            await self._available.wait()
            self._available.clear()
            self._wakeup_scheduled = False
            deltas, end = self._take()
            if deltas:
                yield _merge(deltas)
            if isinstance(end, Exception):
                raise end
            if end:
                yield end
                return
            await self._wait(pause())

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._wakeup_scheduled = True  # prevents wake-ups during the pause
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
            self._wakeup_scheduled = False
        if self._pending:
            self._available.set()

    def _take(self) -> tuple[list[OutputDelta], GenerationOutput | Exception | None]:
        deltas: list[OutputDelta] = []
        while self._pending:
            output = self._pending.popleft()
            if not isinstance(output, OutputDelta):
                return deltas, output
            deltas.append(output)
        return deltas, None

    def _end(self) -> None:
        self._ended.set()
        self._available.set()


def _merge(deltas: list[OutputDelta]) -> OutputDelta:
    if len(deltas) == 1:
        return deltas[0]
    return OutputDelta("".join(delta.text for delta in deltas), tuple(score for delta in deltas for score in delta.logprobs))
