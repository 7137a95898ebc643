"""What the engine's thread says of one reply, for the one task of the event loop that listens to it.

Key property: the first piece is given on at once; after that, while others stream too, pieces wait for company, since a
message between processes costs as much as many tokens in it. The loop is woken once for what it gets at once, and the end never
waits. Plain Python: knows no Ray, no engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from compass_ray.engine.requests import GenerationOutput, OutputDelta

MAX_MESSAGES_PER_SECOND = 100
"""Of all streams of a process together. Measured: each takes 0.4 ms of the process that generates, 0.9 ms of others."""
MAX_FLUSH_INTERVAL_S = 0.25
"""Seconds between two messages of one stream, however many there are: people read along."""


def flush_interval(streams: int) -> float:
    """Seconds that each of so many streams waits for company; one alone never does.

    >>> flush_interval(1), flush_interval(11), flush_interval(1000)
    (0.0, 0.1, 0.25)
    """
    return min((streams - 1) / MAX_MESSAGES_PER_SECOND, MAX_FLUSH_INTERVAL_S)


class FinalListener:
    """Listens for the end alone."""

    def __init__(self) -> None:
        """For the running loop."""
        self._loop = asyncio.get_running_loop()
        self.output: asyncio.Future[GenerationOutput] = self._loop.create_future()

    def on_output(self, each: OutputDelta | GenerationOutput | Exception) -> None:
        """Called in any thread."""
        if not isinstance(each, OutputDelta):
            self._loop.call_soon_threadsafe(self._end, each)

    def _end(self, each: GenerationOutput | Exception) -> None:
        if self.output.done():
            return
        if isinstance(each, Exception):
            self.output.set_exception(each)
        else:
            self.output.set_result(each)


class StreamListener:
    """Listens for every piece."""

    def __init__(self) -> None:
        """For the running loop."""
        self._loop = asyncio.get_running_loop()
        self._pending: deque[OutputDelta | GenerationOutput | Exception] = deque()
        self._available, self._ended = asyncio.Event(), asyncio.Event()
        self._wakeup_scheduled = False

    def on_output(self, each: OutputDelta | GenerationOutput | Exception) -> None:
        """Called in one other thread."""
        self._pending.append(each)
        if not isinstance(each, OutputDelta):
            self._loop.call_soon_threadsafe(self._end)
        elif not self._wakeup_scheduled:
            self._wakeup_scheduled = True
            self._loop.call_soon_threadsafe(self._available.set)

    async def outputs(self, pause: Callable[[], float]) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """The pieces, put together where several wait, and the answer; ``pause`` gives seconds between two."""
        while True:
            await self._available.wait()
            self._available.clear()
            self._wakeup_scheduled = False
            pieces, end = self._take()
            if pieces:
                yield _merge(pieces)
            if isinstance(end, Exception):
                raise end
            if end:
                yield end
                return
            await self._wait(pause())

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._wakeup_scheduled = True  # nothing wakes the loop meanwhile
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
            self._wakeup_scheduled = False
        if self._pending:
            self._available.set()

    def _take(self) -> tuple[list[OutputDelta], GenerationOutput | Exception | None]:
        pieces: list[OutputDelta] = []
        while self._pending:
            each = self._pending.popleft()
            if not isinstance(each, OutputDelta):
                return pieces, each
            pieces.append(each)
        return pieces, None

    def _end(self) -> None:
        self._ended.set()
        self._available.set()


def _merge(pieces: list[OutputDelta]) -> OutputDelta:
    if len(pieces) == 1:
        return pieces[0]
    return OutputDelta("".join(piece.text for piece in pieces), tuple(score for piece in pieces for score in piece.logprobs))
